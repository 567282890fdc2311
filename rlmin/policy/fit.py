"""Fit: whether an environment or a dataset has the spaces that a policy was made for, and whether it reads a target."""

from typing import Any

import gymnasium as gym

from rlmin.policy.policy import Policy
from rlmin.spaces import as_read, leaf_spaces
from rlmin.spaces.as_json import space_to_json
from rlmin.vector import Vector
from rlmin.wrappers.return_to_go import RETURN_TO_GO


def check_spaces(policy: Policy, vector: Vector, *, value: bool = False) -> None:
    """Raise a ValueError if the spaces of the environment are not those the policy was made for.

    Bounds and precision of observed floats may differ: data without spaces do not tell them, and no policy reads them.

    Args:
        policy: the policy.
        vector: its environments.
        value: whether the value is needed too, and with it privileged entries of the observation.
    """
    check_fit(policy, vector.observation_space, vector.action_space, value=value)


def check_fit(
    policy: Policy,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    of: str = "the environment",
    value: bool = False,
) -> None:
    """As `check_spaces`, given the spaces of a single environment instead of a `Vector`."""
    alone = not value and space_to_json(as_read(observation_space)) == space_to_json(as_read(policy.acting_space))
    pairs: list[tuple[str, Any, Any]] = [
        ("observation space", policy.acting_space if alone else policy.observation_space, observation_space),
        ("action space", policy.action_space, action_space),
    ]
    for what, wanted, found in pairs:
        alike = (as_read(wanted), as_read(found)) if what == "observation space" else (wanted, found)
        if space_to_json(alike[0]) != space_to_json(alike[1]):
            raise ValueError(f"{what}: the policy expects {wanted}, {of} has {found}")


def is_conditioned(policy: Policy) -> bool:
    """Whether the policy reads a return to aim for."""
    return RETURN_TO_GO in leaf_spaces(policy.acting_space)
