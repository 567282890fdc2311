"""Source: a data set as a reader opens it, and Block: the raw steps it gives, a few megabytes at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlmin.data.dataset import Reference

BLOCK_BYTES = 32 * 2**20
"""About how much of a data set is held at once while it is read; an episode is never cut."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole episodes, e of them with n steps in all, one after the other, in the environment's own numbers."""

    observation: dict[str, np.ndarray]  # leaf name -> [n, *shape]
    final: dict[str, np.ndarray]  # leaf name -> [e, *shape], the state reached by the last step of each
    action: np.ndarray  # [n, *shape]
    reward: np.ndarray  # [n]
    length: np.ndarray  # [e] int64
    terminated: np.ndarray  # [e] bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of a data set before it is read, and how to read it."""

    name: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    num_steps: int
    num_episodes: int
    blocks: Callable[[], Iterator[Block]]  # reads everything once
    fingerprint: Callable[[], str]  # differs where the content does
    slow: bool = False  # an episode takes milliseconds to read
    env: dict[str, Any] | None = None
    reference: Reference | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """`value` as plain numbers, text, lists and dicts; anything else as its text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | bool | int | float | None) else str(value)
