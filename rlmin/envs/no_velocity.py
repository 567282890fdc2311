"""Classic control without velocities: one observation no longer shows where the system is going.

    rlmin/CartPoleNoVel-v1   gymnasium's CartPole, observation [cart position, pole angle], 500 steps
    rlmin/PendulumNoVel-v1   gymnasium's Pendulum, observation [cos, sin] of the angle, 200 steps

Dynamics, rewards and ends are gymnasium's. Velocities are left out, not set to zero. Two successive observations are
enough to recover them.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

Array = np.ndarray[Any, np.dtype[np.float32]]


class PositionsOnly(gym.Env[Any, Any]):
    """Mixed in before a gymnasium game: the agent sees only the entries `shown` of an observation."""

    shown: list[int]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        space: Any = self.observation_space
        self.observation_space = spaces.Box(space.low[self.shown], space.high[self.shown], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation[self.shown], info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation[self.shown], float(reward), terminated, truncated, info


class CartPoleNoVel(PositionsOnly, CartPoleEnv):
    """CartPole that shows positions only."""

    shown = [0, 2]  # noqa: RUF012  of [x, x velocity, angle, angular velocity]


class PendulumNoVel(PositionsOnly, PendulumEnv):
    """Pendulum that shows its angle only."""

    shown = [0, 1]  # noqa: RUF012  of [cos, sin, angular velocity]
