"""Classic control without velocities: one observation no longer tells where the system is going.

    rlmin/CartPoleNoVel-v1   gymnasium's CartPole, observation [cart position, pole angle], 500 steps
    rlmin/PendulumNoVel-v1   gymnasium's Pendulum, observation [cos, sin] of the angle, 200 steps

Dynamics, rewards and ends are gymnasium's. Velocities are left out, not set to zero. Two remembered observations are
enough to recover them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

Array = np.ndarray[Any, np.dtype[np.float32]]


class CartPoleNoVel(CartPoleEnv):
    """CartPole that shows positions only."""

    shown = (0, 2)  # of [x, x velocity, angle, angular velocity]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = _only(self.observation_space, self.shown)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation[list(self.shown)], info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[list(self.shown)], float(reward), terminated, truncated, info


class PendulumNoVel(PendulumEnv):
    """Pendulum that shows its angle only."""

    shown = (0, 1)  # of [cos, sin, angular velocity]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = _only(self.observation_space, self.shown)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation[list(self.shown)], info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation[list(self.shown)], float(reward), terminated, truncated, info


def _only(space: Any, shown: Sequence[int]) -> spaces.Box:
    return spaces.Box(space.low[list(shown)], space.high[list(shown)], dtype=np.float32)
