"""The work of a wrapper as pure functions: the same code for one environment and for many, on arrays or tensors.

A transform keeps a `Memory`: arrays with one entry a row, shape [B, ...] around a vector environment and [...] around a
single one, numpy arrays or tensors like the environment's. It never writes into its arguments.
"""

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.draws import MIX_B, key, to_signed

Rows: TypeAlias = Any
"""One value a row: a numpy array or a tensor, [B] or []."""
Memory: TypeAlias = dict[str, Rows]


class Transform:
    """Changes observations, rewards and actions; the defaults change nothing."""

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        """The observation space of one environment, from the spaces of the inner environment."""
        return observation

    def start(self, rows: "Like") -> Memory:
        """Memory of rows that open an episode."""
        return {}

    def act(self, memory: Memory, action: Rows) -> Rows:
        """The action to execute; `after` receives this one."""
        return action

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        """Memory after a transition, and the reward to report for it."""
        return memory, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        """The observation to report; may be called several times for one state."""
        return observation


class Like:
    """Makes arrays of the kind and with the rows of an environment."""

    def __init__(self, lead: tuple[int, ...], device: torch.device | None, seed: Rows = None) -> None:
        """`lead`: (B,) or (); `device`: of tensors, None for numpy; `seed`: int64 a row, for random numbers."""
        self.lead, self.device, self.seed = lead, device, seed
        self._made: dict[tuple[Any, ...], Rows] = {}  # so that the end of an episode on a GPU needs no transfer

    def full(self, value: Any, dtype: type | np.dtype[Any] = np.float32) -> Rows:
        """[*lead, *value.shape] filled with `value`; not to be written into."""
        value = np.asarray(value, dtype=dtype)
        return self._keep(np.broadcast_to(value, (*self.lead, *value.shape)))

    def each(self, value: Any, dtype: type | np.dtype[Any] = np.float32) -> Rows:
        """[*lead], one value for all or one for each row; not to be written into."""
        return self._keep(np.broadcast_to(np.asarray(value, dtype=dtype), self.lead))

    def _keep(self, array: np.ndarray[Any, Any]) -> Rows:
        """`array` in the environment's form; equal values share one tensor."""
        if self.device is None:
            return array.copy()
        key = (array.tobytes(), array.shape, array.dtype.str, self.device)
        if key not in self._made:
            self._made[key] = torch.from_numpy(array.copy()).to(self.device)
        return self._made[key]


class Drawing(Transform):
    """A change that draws random numbers, and remembers only its place among them."""

    def start(self, rows: Like) -> Memory:
        return start_count(rows)

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {**memory, "t": memory["t"] + 1}, reward


def start_count(rows: Like) -> Memory:
    """Memory for random numbers: step, episode and seed, from which `draw_key` derives them."""
    zero = rows.full(0, np.int64)
    return {"t": zero, "episode": zero, "stream": rows.seed}


def draw_key(memory: Memory, stream: int) -> tuple[Tensor, Tensor]:
    """Key and step of every row, for rlmin.envs.draws; each kind of wrapper has a `stream`, apart from the game's."""
    seed, episode, t = (torch.as_tensor(memory[name]) for name in ("stream", "episode", "t"))
    return key(seed + to_signed(stream * MIX_B), episode), t


def where(rows: Rows, a: Any, b: Any) -> Any:
    """`a` in the `rows` that are set, `b` elsewhere; further axes are added to `rows`."""
    if isinstance(rows, Tensor):
        return torch.where(rows.reshape(rows.shape + (1,) * (b.dim() - rows.dim())), a, b)
    b = np.asarray(b)
    return np.where(np.reshape(rows, np.shape(rows) + (1,) * (b.ndim - np.ndim(rows))), a, b).astype(b.dtype)


def mix(rows: Rows, a: Memory, b: Memory) -> Memory:
    """Memory `a` in the `rows` that are set, `b` elsewhere."""
    return {name: where(rows, a[name], part) for name, part in b.items()}


def with_leaf(space: gym.Space[Any], name: str, leaf: gym.Space[Any]) -> gym.Space[Any]:
    """A Dict of `space` (under "observation" unless it is a Dict) and `leaf`.

    Raises:
        ValueError: the name is taken.
    """
    inside = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    if name in inside:
        raise ValueError(f"the observation has an entry {name!r} already: {space}")
    return spaces.Dict(inside | {name: leaf})


def with_entry(observation: Any, name: str, value: Rows) -> dict[str, Any]:
    """The observation that belongs to `with_leaf`."""
    inside = observation if isinstance(observation, dict) else {"observation": observation}
    return {**inside, name: value}
