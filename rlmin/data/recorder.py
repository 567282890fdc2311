"""Recorder: whole episodes of a vector environment, in the environment's own numbers.

It wraps an environment and copies its data without conversion, so a dataset contains exactly
the original observations. An episode is kept in memory until it ends; unfinished episodes need

    B * longest episode so far * bytes of an observation
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from rlmin.spaces.leaves import pick
from rlmin.types import AnyVectorWrapper

Path: TypeAlias = tuple[str | int, ...]
Array: TypeAlias = "np.ndarray[Any, Any]"

FIRST_CAPACITY = 64


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One episode of L steps."""

    row: int  # number of the row in the vector environment
    turn: int  # number of earlier episodes of the row since it was seeded
    observations: Any  # arrays [L + 1, ...] or lists of text, nested like the space
    actions: Array  # [L, ...]
    rewards: Array  # [L] float64
    terminated: bool  # otherwise truncated

    @property
    def nbytes(self) -> int:
        """Bytes in memory, without text."""
        return sum(leaf.nbytes for leaf in _leaves(self.observations)) + self.actions.nbytes + self.rewards.nbytes


class Recorder(AnyVectorWrapper):
    """A vector environment, in any autoreset mode, of arrays or tensors, which collects finished episodes."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Wrap.

        Raises:
            ValueError: a space that cannot be stored, see `make_stored_space`, or an unknown autoreset mode.
        """
        super().__init__(env)
        mode = (env.metadata or {}).get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(f"{env}: expected metadata['autoreset_mode'] to be an AutoresetMode, got {mode!r}")
        self.mode = mode
        self.stored_space = make_stored_space(env.single_observation_space)
        action, rows = env.single_action_space, env.num_envs
        self._parts = {path: _buffer(rows, part) for path, part in _walk(self.stored_space, ())}
        self._action = _buffer(rows, action)
        self._reward = np.zeros((rows, FIRST_CAPACITY))
        self._length, self._turn = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        self._ended = np.zeros(rows, dtype=bool)
        self._finished: list[Recorded] = []

    def take(self) -> list[Recorded]:
        """The episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mask = (options or {}).get("reset_mask")  # before gymnasium takes it out
        observation, infos = self.env.reset(seed=seed, options=options)
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        if mask is None:
            self._turn[:] = 0
        self._open(rows, observation)
        self._ended[:] = False
        return observation, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        opening = self._ended if self.mode is AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        rows = np.flatnonzero(~opening)
        at = self._length[rows]
        self._make_room(int(at.max(initial=0)) + 2)
        self._action[rows, at] = _numpy(actions)[rows]
        self._reward[rows, at] = _numpy(reward)[rows]
        self._length[rows] += 1
        over = _numpy(terminated).astype(bool)
        ended = (over | _numpy(truncated).astype(bool)) & ~opening
        self._reach(np.flatnonzero(~ended & ~opening), observation)
        self._reach_end(np.flatnonzero(ended), observation, infos)
        for row in np.flatnonzero(ended):
            self._finished.append(self._episode(int(row), bool(over[row])))
        self._turn += ended
        self._ended = ended
        if self.mode is not AutoresetMode.DISABLED:  # otherwise the caller resets the rows
            self._open(np.flatnonzero(ended if self.mode is AutoresetMode.SAME_STEP else opening), observation)
        return observation, reward, terminated, truncated, infos

    def _open(self, rows: Array, observation: Any) -> None:
        self._length[rows] = 0
        self._reach(rows, observation)

    def _reach(self, rows: Array, observation: Any) -> None:
        """Write the observations of `rows` at their present step."""
        if len(rows):
            for path, buffer in self._parts.items():
                buffer[rows, self._length[rows]] = _column(pick(observation, path), buffer)[rows]

    def _reach_end(self, rows: Array, observation: Any, infos: dict[str, Any]) -> None:
        """Write the final states of ended rows: with SAME_STEP `observation` already belongs to the next episode."""
        if self.mode is not AutoresetMode.SAME_STEP or not len(rows):
            self._reach(rows, observation)
            return
        final = infos["final_obs"] if "final_obs" in infos else infos.get("final_observation")
        if final is None:
            raise ValueError(f"environment {rows[0]} ended without infos['final_obs'] (SAME_STEP)")
        if not (isinstance(final, np.ndarray) and final.dtype == object):
            self._reach(rows, final)
            return
        for row in rows:  # one observation or None a row
            for path, buffer in self._parts.items():
                buffer[row, self._length[row]] = pick(final[row], path)

    def _episode(self, row: int, terminated: bool) -> Recorded:
        L = int(self._length[row])
        parts = {path: buffer[row, : L + 1].copy() for path, buffer in self._parts.items()}
        return Recorded(
            row=row,
            turn=int(self._turn[row]),
            observations=nest(self.stored_space, parts, ()),
            actions=self._action[row, :L].copy(),
            rewards=self._reward[row, :L].copy(),
            terminated=terminated,
        )

    def _make_room(self, steps: int) -> None:
        capacity = self._reward.shape[1]
        if steps <= capacity:
            return
        self._parts = {path: _double(buffer) for path, buffer in self._parts.items()}
        self._action, self._reward = _double(self._action), _double(self._reward)


def make_stored_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """`space` as a dataset stores it: text spaces of other libraries (MiniGrid's missions) become `spaces.Text`.

    Raises:
        ValueError: a part is neither Box, Discrete, MultiDiscrete, MultiBinary nor text, or has an unusable name.
    """
    if isinstance(space, spaces.Dict):
        for name in space.spaces:
            if not isinstance(name, str) or not name or "/" in name:
                raise ValueError(f"a dataset cannot hold the entry {name!r} of {space}: '/' separates groups in a file")
        return spaces.Dict([(name, make_stored_space(part)) for name, part in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([make_stored_space(part) for part in space.spaces])
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text):
        return space
    if space.dtype is not None and space.dtype.kind == "U":
        return spaces.Text(max_length=1000, charset="".join(map(chr, range(32, 127))))
    raise ValueError(f"a dataset cannot hold {type(space).__name__} ({space}): only Box, choices, text, Dict and Tuple")


def _walk(space: gym.Space[Any], path: Path) -> Iterator[tuple[Path, gym.Space[Any]]]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, space
        return
    pairs = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    for key, part in pairs:
        yield from _walk(part, (*path, key))


def nest(space: gym.Space[Any], parts: dict[Path, Array], path: Path) -> Any:
    """The inverse of `_walk`: arrays by path, as nested as the space."""
    if isinstance(space, spaces.Dict):
        return {name: nest(part, parts, (*path, name)) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(nest(part, parts, (*path, i)) for i, part in enumerate(space.spaces))
    return list(parts[path]) if isinstance(space, spaces.Text) else parts[path]


def _leaves(observation: Any) -> Iterator[Array]:
    if isinstance(observation, np.ndarray):
        yield observation
    elif isinstance(observation, dict | tuple):
        for part in observation.values() if isinstance(observation, dict) else observation:
            yield from _leaves(part)


def _buffer(rows: int, space: gym.Space[Any]) -> Array:
    """[B, capacity, ...] of one leaf."""
    if isinstance(space, spaces.Text):
        return np.full((rows, FIRST_CAPACITY), "", dtype=object)
    return np.zeros((rows, FIRST_CAPACITY, *(space.shape or ())), dtype=space.dtype)


def _double(buffer: Array) -> Array:
    return np.concatenate([buffer, np.zeros_like(buffer)], axis=1)


def _column(part: Any, buffer: Array) -> Array:
    """One leaf of every row as an array [B, ...]; texts come as a tuple."""
    return np.array(list(part), dtype=object) if buffer.dtype == object else _numpy(part)


def _numpy(x: Any) -> Array:
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
