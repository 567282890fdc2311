"""Source: a dataset opened by a reader; Block: its raw steps, a few megabytes at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlmin.data.dataset import Reference

BLOCK_BYTES = 32 * 2**20
"""Approximate number of bytes read at a time; an episode is never cut."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """e whole episodes with n steps in total, one after the other, in the environment's own numbers."""

    observation: dict[str, np.ndarray]  # leaf name -> [n, *shape]
    final: dict[str, np.ndarray]  # leaf name -> [e, *shape], the state after the last step of each
    action: np.ndarray  # [n, *shape]
    reward: np.ndarray  # [n]
    length: np.ndarray  # [e] int64
    terminated: np.ndarray  # [e] bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """Facts about a dataset before it is read, and a way to read it."""

    name: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    num_steps: int
    num_episodes: int
    blocks: Callable[[], Iterator[Block]]  # reads everything once
    fingerprint: Callable[[], str]  # changes with the content
    slow: bool = False  # whether reading an episode takes milliseconds
    env: dict[str, Any] | None = None
    reference: Reference | None = None
    recipe: dict[str, Any] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """`value` as plain numbers, text, lists and dicts; anything else becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | bool | int | float | None) else str(value)
