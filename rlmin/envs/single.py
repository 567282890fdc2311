"""One game of a native environment as an ordinary gymnasium environment, of numpy arrays and numbers."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.tensor_env import TensorEnv


class Single(gym.Env[Any, Any]):
    """The rules and the draws of one row of `game`, for users of single environments.

    A subclass names its `game`; keywords are those of the game. For speed use the game itself: it steps thousands of
    rows in the time that this class takes for one.
    """

    game: ClassVar[type[TensorEnv]]
    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012  (gymnasium's type)

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        self.inner = self.game(1, render_mode=render_mode, **options)
        self.render_mode = render_mode
        self.observation_space = self.inner.single_observation_space
        self.action_space = self.inner.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Open an episode: the first of `seed`, or the next of the seed in use."""
        super().reset(seed=seed)
        if seed is None and not self.inner.state:
            seed = int(self.np_random.integers(1 << 31))
        observation, infos = self.inner.reset(seed=seed)
        return _first(self.observation_space, observation), infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action; nothing is reset. The last step of an episode reports `is_success` if the game knows it."""
        inner = self.inner
        if not inner.state:
            raise RuntimeError("call reset() before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"{self.game.__name__}: action: expected one of {self.action_space}, got {action!r}")
        outcome = inner.advance(inner.state, torch.as_tensor(np.asarray(action)[None]))
        inner.state = inner.state | outcome.changes
        terminated = outcome.terminated is not None and bool(outcome.terminated)
        truncated = outcome.truncated is not None and bool(outcome.truncated)
        success = inner.success(inner.state) if terminated or truncated else None
        info = {} if success is None else {"is_success": bool(success)}
        observation = _first(self.observation_space, inner.observe(inner.state))
        return observation, float(outcome.reward), terminated, truncated, info

    def render(self) -> Any:
        """Text or picture, by `render_mode`."""
        return None if self.render_mode is None else self.inner.drawn(0, self.render_mode)


def _first(space: gym.Space[Any], batched: Any) -> Any:
    """Row 0 of a batched observation, as `space` wants it."""
    if isinstance(space, spaces.Dict):
        return {name: _first(part, batched[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_first(part, x) for part, x in zip(space.spaces, batched, strict=True))
    row: Tensor = batched[0]
    if isinstance(space, spaces.Discrete):
        return np.int64(row.item())
    return row.numpy().astype(space.dtype)
