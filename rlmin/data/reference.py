"""Reference scores of D4RL: the returns that count as 0 and 100 in its tasks."""

import re
from collections.abc import Mapping
from typing import Any

from rlmin.data.dataset import Reference

D4RL = {  # task: (random, expert), by the first words of a dataset's name
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
    "kitchen": (0.0, 4.0),
}
"""Source: Farama-Foundation/D4RL, d4rl/infos.py (Apache-2.0). v1 and v2 share the numbers."""

PROVIDERS = ("d4rl", "mujoco")
"""Namespaces before the task in Minari ids."""

KINDS = {"random", "simple", "medium", "full", "expert", "human", "cloned", "complete", "partial", "mixed"}
KINDS |= {"umaze", "medium", "large", "eval"}
"""Words that may follow the task in a name; "door-key" is not "door"."""

ENVIRONMENTS = {"AdroitHandPen": "pen", "AdroitHandHammer": "hammer", "AdroitHandRelocate": "relocate"}
ENVIRONMENTS |= {"AdroitHandDoor": "door", "FrankaKitchen": "kitchen"}


def reference_in(id: str, kwargs: Mapping[str, Any]) -> Reference | None:
    """The D4RL reference scores of an environment; None if D4RL has none, or if arguments make it another task."""
    return None if kwargs else reference_of(id)


def make_reference(returns: tuple[float, float] | None) -> Reference | None:
    """The returns of a random policy and an expert that a user gives."""
    return None if returns is None else Reference(random=returns[0], expert=returns[1], source="given")


def reference_of(name: str) -> Reference | None:
    """The D4RL reference scores of a task; None if D4RL has none.

    Args:
        name: of a dataset ("hopper-medium-v2", "D4RL/pen/human-v2", "mujoco/hopper/expert-v0") or of an environment
            ("Hopper-v5"). The task comes first; "my-hopper" or "bullet-hopper" is another one.
    """
    plain = ENVIRONMENTS.get(re.sub(r"-v\d+$", "", name), name).lower()
    words = [word for word in re.split(r"[-/_]", plain) if word]
    while words and words[0] in PROVIDERS:
        words = words[1:]
    task = next((task for task in ("-".join(words[:2]), *words[:1]) if task in D4RL), None)
    if task is None or (task.startswith("maze2d") and "dense" in words):
        return None
    if len(words) > 1 and words[1] not in KINDS and not re.fullmatch(r"v\d+", words[1]):
        return None
    random, expert = D4RL[task]
    return Reference(random=random, expert=expert, source=f"D4RL, {task}")
