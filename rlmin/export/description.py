"""The description of an exported policy as JSON, which is the same for every form of export.

format, rlmin                      of this description; version that wrote it
observation_space, action_space    of one environment, see rlmin.spaces.as_json
observation                        leaves: name, path from the root, shape, dtype, start and bounds of choices
action                             choices (their sizes) or point (its size), and how it becomes the environment's;
                                   squash: the point is the tanh of what is drawn
previous_action, previous_reward   whether the policy reads them
run                                agent, env, num_timesteps, return_scale: values given to the exporter
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from rlmin import __version__
from rlmin.export.numpy_policy import FORMAT
from rlmin.policy import Policy
from rlmin.policy.heads import BoxHead, ChoiceHead
from rlmin.spaces import NUMPY_TYPE, Leaf, leaves_of
from rlmin.spaces.as_json import space_to_json


def describe_policy(policy: Policy, run: Mapping[str, Any] | None = None, *, value: bool = False) -> dict[str, Any]:
    """The description of a policy.

    Args:
        policy: to be exported.
        run: where it comes from, plain values.
        value: whether the value is exported, which may read entries of the observation that acting does not.
    """
    space = policy.observation_space if value else policy.acting_space
    return {
        "format": FORMAT,
        "rlmin": __version__,
        "observation_space": space_to_json(space),
        "action_space": space_to_json(policy.action_space),
        "observation": [_leaf(leaf) for leaf in leaves_of(space)],
        "action": _action(policy),
        "previous_action": policy.config.previous_action,
        "previous_reward": policy.config.previous_reward,
        "run": dict(run or {}),
    }


def _leaf(leaf: Leaf) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": leaf.name, "path": list(leaf.path), "shape": list(leaf.shape)}
    entry |= {"dtype": np.dtype(NUMPY_TYPE[leaf.dtype]).name, "declared": str(leaf.declared)}
    if leaf.start is not None:
        entry["start"] = leaf.start.tolist()
    if leaf.bounds is not None:
        entry["low"], entry["high"] = (np.asarray(bound).tolist() for bound in leaf.bounds)
    return entry


def _action(policy: Policy) -> dict[str, Any]:
    head, space = policy.action_head, policy.action_space
    entry: dict[str, Any] = {"shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(head, ChoiceHead):
        return entry | {"choices": list(head.sizes), "first": head.first.tolist()}
    if isinstance(head, BoxHead):
        numbers = {name: _numbers(getattr(head, name)) for name in ("centre", "scale", "low", "high")}
        return entry | {"point": head.event_shape[0], **numbers} | ({"squash": True} if head.squash else {})
    raise ValueError(f"export: expected a head of rlmin.policy.heads, found {type(head).__name__}")


def _numbers(x: Tensor) -> list[Any]:
    """Numbers for JSON, which has no infinity: "inf" and "-inf" stand for it."""
    return [value if np.isfinite(value) else str(value) for value in x.tolist()]
