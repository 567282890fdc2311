"""Privileged entries of an observation: only the value reads them, in training; acting never needs them."""

from collections.abc import Collection

import gymnasium as gym

from rlmin.checks import check_names
from rlmin.spaces import without


def make_acting_space(space: gym.Space[object], privileged: Collection[str]) -> gym.Space[object]:
    """The observation space without its privileged entries: all that acting reads.

    Args:
        space: of a single environment.
        privileged: keys of a Dict.

    Raises:
        ValueError: the space is no Dict, lacks an entry, or has no other.
    """
    if not privileged:
        return space
    if not isinstance(space, gym.spaces.Dict):
        raise ValueError(f"privileged: expected a Dict observation with {', '.join(privileged)} in it, got {space}")
    check_names("privileged entry of the observation", privileged, space.spaces)
    left: gym.Space[object] = space
    for key in privileged:
        left = without(left, key)
    if set(privileged) >= set(space.spaces):
        raise ValueError("privileged: nothing is left for the policy to act by; leave out an entry")
    return left
