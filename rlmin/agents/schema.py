"""Checks of a checkpoint's tensors, before a policy is built or an agent is changed.

The settings in a header are not trusted. The policy that they describe is first made without memory (torch's meta
device) and compared with the tensors in the file. Sizes that fit need no more memory than the file has.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlmin.checks import check_names
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.normalize import Range, RunningNorm
from rlmin.runs.checkpoint import Tensors, section
from rlmin.settings import field_types
from rlmin.types import tensors_of

if TYPE_CHECKING:
    from rlmin.agents.agent import Agent

MOST_STEPS = 2**25
"""Largest number of steps in one rollout or batch, for settings from a file."""
MOST_MEMORY = 2**26
"""Largest memory of a policy, in numbers, for settings from a file."""
MOST_TENSORS = 20_000
BLOCK = re.compile(r"\.blocks\.(\d+)\.")
WITHOUT_UNIT = {"value_head.mean": torch.tensor(0.0), "value_head.scale": torch.tensor(1.0)}
"""The unit of values in older checkpoints, which have none."""
VARIABLE = ("collector.statistics.window_",)
"""Tensors whose length is not known beforehand."""
FINITE = (
    *("optimizer.", "return_norm.", "value_norm.", "largest_reward", "usual_norm", "discounted"),
    *("memory.", "collector.memory."),
)
"""Tensors of a learner that have to be finite."""


def read_settings(kind: type["Agent"], header: Mapping[str, Any], tensors: Tensors) -> Any:
    """The settings of a checkpoint, if its tensors are those of the policy they describe.

    Raises:
        ValueError: they are not, an entry is unknown or out of range, or the tensors are not finite.
    """
    names: Any = kind.settings
    check_names("setting", header["config"], field_types(names))
    config = kind.settings.from_saved(header["config"])
    weights = policy_weights(tensors)
    _check_sizes(config, weights)
    skeleton = _skeleton(header, config)
    check_weights(skeleton, weights)
    _check_memory(skeleton)
    if "discounted" in tensors:
        _check_like("discounted", torch.empty(getattr(config, "num_envs", 0), device="meta"), tensors["discounted"])
    rows = {x.shape[:1].numel() for name, x in tensors.items() if name.startswith("memory.")}
    if rows - {getattr(config, "rows", 0)}:
        raise ValueError(f"rows={getattr(config, 'rows', 0)}: the saved memory has {', '.join(map(str, rows))}")
    return config


def policy_weights(tensors: Tensors) -> Tensors:
    """Weights and normalisers of the policy among the tensors of a checkpoint, also of one from an older version."""
    return {**WITHOUT_UNIT, **section(tensors, "policy")}


def check_weights(policy: Policy, weights: Tensors) -> None:
    """Raise a ValueError if the policy could not have these weights."""
    wanted = policy.state_dict()
    _check_names("policy", weights, wanted)
    for name, x in wanted.items():
        _check_like(f"policy.{name}", x, weights.get(name))
    ranges = {f"{path}.{side}" for path, part in policy.named_modules() if isinstance(part, Range) for side in _SIDES}
    for name, x in weights.items():
        _check_finite(f"policy.{name}", x, or_infinite=name in ranges)
    for path, part in policy.named_modules():
        if isinstance(part, RunningNorm):
            _check_norm(f"policy.{path}", {name: weights[f"{path}.{name}"] for name in ("var", "count")})


def check_learner(agent: "Agent", tensors: Tensors) -> None:
    """Raise a ValueError if the agent could not continue from these tensors; it does not change.

    Tensors of its environment or data are not checked here: a run may continue with others.
    """
    _check_moments(agent, section(tensors, "optimizer"))
    wanted = {name: x for name, x in agent.learner_state().items() if not name.startswith("optimizer.")}
    rows = len(wanted["discounted"]) if "discounted" in wanted else None
    other_rows = rows is not None and "discounted" in tensors and len(tensors["discounted"]) != rows
    groups = {name.split(".")[0] for name in wanted} & {name.split(".")[0] for name in tensors}
    for group in groups - ({"collector", "discounted"} if other_rows else set()):
        known, given = ({n: x for n, x in of.items() if n.split(".")[0] == group} for of in (wanted, tensors))
        if group == "generator":  # another kind of device has another generator, whose numbers begin anew
            known = {name: x for name, x in known.items() if name in given}
        else:
            _check_names(group, given, known)
        for name, x in known.items():
            _check_like(name, x, given.get(name), any_length=name.startswith(VARIABLE))
    for name, x in tensors.items():
        if name.startswith(FINITE):
            _check_finite(name, x)
    for norm in ("return_norm", "value_norm"):
        if f"{norm}.var" in tensors:
            _check_norm(norm, section(tensors, norm))


_SIDES = ("low", "high")


def _check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted({*given} - {*known})
    if unknown:
        raise ValueError(f"{kind}: has no tensor {unknown[0]!r:.80}")


def _check_sizes(config: PolicyConfig, weights: Tensors) -> None:
    """Check the sizes that the file contradicts, and those that no tensor in it bounds."""
    if len(weights) > MOST_TENSORS:
        raise ValueError(f"policy: expected at most {MOST_TENSORS:,} tensors, got {len(weights):,}")
    longest = max((size for x in weights.values() for size in x.shape), default=0)
    layers = len({found[1] for name in weights if (found := BLOCK.search(name))})
    for name, most in (("layers", layers), ("width", longest), ("conv", longest)):
        found = getattr(config, name)
        if found > most:
            raise ValueError(f"{name}={found}: the weights allow at most {most}")
    for pair in (("num_envs", "horizon"), ("rows", "steps")):
        sizes = {name: getattr(config, name, 0) for name in pair}
        if math.prod(sizes.values()) > MOST_STEPS:
            shown = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ValueError(f"{shown}: {math.prod(sizes.values()):,} steps at once are too many")


def _check_memory(skeleton: Policy) -> None:
    """Check the size of the memory, which no tensor of the file bounds for attention."""
    size = sum(x.numel() for x in tensors_of(skeleton.initial_state(1)))
    if size > MOST_MEMORY:
        raise ValueError(f"encoder={skeleton.config.encoder!r}: {size:,} numbers to remember are too many (context?)")


def _skeleton(header: Mapping[str, Any], config: PolicyConfig) -> Policy:
    """The policy on the meta device: shapes without memory."""
    spaces = header["observation_space"], header["action_space"]
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return Policy(*spaces, config)
    except (RuntimeError, NotImplementedError):  # a user's cell may read its numbers
        with torch.random.fork_rng(devices=[]):
            return Policy(*spaces, config)


def _check_like(name: str, wanted: Tensor, found: Tensor | None, *, any_length: bool = False) -> None:
    if found is None:
        raise ValueError(f"{name}: expected {_form(wanted)}, and it is missing")
    same = found.ndim == wanted.ndim if any_length else found.shape == wanted.shape
    if not same or found.dtype != wanted.dtype:
        raise ValueError(f"{name}: expected {_form(wanted)}, got {_form(found)}")


def _check_finite(name: str, x: Tensor, *, or_infinite: bool = False) -> None:
    if x.is_complex():
        raise ValueError(f"{name}: expected real numbers, got {_form(x)}")
    if x.is_floating_point() and not bool((~torch.isnan(x) if or_infinite else torch.isfinite(x)).all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; the weights were lost in training")


def _check_norm(name: str, parts: Tensors) -> None:
    if any(bool((x < 0).any()) for part, x in parts.items() if part in ("var", "count")):
        raise ValueError(f"{name}: expected a variance and a count that are not negative")


def _check_moments(agent: "Agent", moments: Tensors) -> None:
    """Check Adam's moments of all parameters as one vector; there are none before the first step."""
    if not moments:
        return
    flat = agent.optimizer.flat
    wanted = {"0.step": torch.zeros((), device="meta"), "0.exp_avg": flat, "0.exp_avg_sq": flat}
    _check_names("optimizer", moments, wanted)
    for name, x in wanted.items():
        _check_like(f"optimizer.{name}", x, moments.get(name))
    if bool((moments["0.exp_avg_sq"] < 0).any()) or float(moments["0.step"]) < 0:
        raise ValueError("optimizer: expected moments and a count that are not negative")


def _form(x: Tensor) -> str:
    return f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}"
