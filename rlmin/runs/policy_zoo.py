"""The policies that come with rlmin, by name: "zoo:tmaze" is a small policy trained by the preset of that name.

    rlmin/configs/policies/NAME/policy.safetensors    weights and settings, as in any run folder
    rlmin/configs/policies/NAME/score.json            preset, command, and what it scores
    rlmin/configs/policies/NAME/README.md, curve.png  card and learning curve

They are data, as every run folder is; `benchmarks/zoo.py` trains and packs them.
"""

import json
from pathlib import Path
from typing import Any

from rlmin.checks import check_names

POLICIES = Path(__file__).parent.parent / "configs" / "policies"
PREFIX = "zoo:"
SCORE = "score.json"


def zoo_names() -> list[str]:
    """Names of the policies."""
    return sorted(path.parent.name for path in POLICIES.glob(f"*/{SCORE}"))


def zoo_folder(place: str | Path) -> Path:
    """The folder of "zoo:NAME".

    Raises:
        ValueError: there is no such policy.
    """
    name = str(place).removeprefix(PREFIX)
    check_names("policy of the zoo", [name], zoo_names())
    return POLICIES / name


def read_score(name: str) -> dict[str, Any]:
    """What a policy of the zoo scores: "preset", "command", "episodes", "seed", "mean_return" and "success_rate"."""
    found: dict[str, Any] = json.loads((POLICIES / name / SCORE).read_text(encoding="utf-8"))
    return found


def describe_zoo() -> list[str]:
    """A line a policy: its name and score, and the command that trained it."""
    lines = []
    for name in zoo_names():
        score = read_score(name)
        won = "" if score["success_rate"] is None else f", success {100 * score['success_rate']:.1f} %"
        lines.append(f"{PREFIX}{name}: return {score['mean_return']:.3f}{won}; {score['command']}")
    return lines
