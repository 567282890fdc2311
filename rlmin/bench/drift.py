"""An environment that costs next to nothing, to measure the speed of agents; and episodes of random numbers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlmin.data import Episode

D, A = 11, 3
OBSERVATION = gym.spaces.Box(-np.inf, np.inf, (D,), np.float32)
ACTION = gym.spaces.Box(-1, 1, (A,), np.float32)


class Drift(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """x' = 0.9 x + push(action), the reward is x[0]; every episode has the same length. In numpy, B at once."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  (gymnasium's type)
    PUSH = np.random.default_rng(0).normal(size=(A, D)).astype(np.float32)

    def __init__(self, num_envs: int, length: int) -> None:
        self.num_envs, self.length = num_envs, length
        self.single_observation_space, self.single_action_space = OBSERVATION, ACTION
        self.observation_space, self.action_space = batch_space(OBSERVATION, num_envs), batch_space(ACTION, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.x: np.ndarray = np.ones((self.num_envs, D), np.float32)
        self.t = 0
        return self.x, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.x, self.t = np.float32(0.9) * self.x + actions @ self.PUSH, self.t + 1
        reached, ended, never = self.x, np.full(self.num_envs, self.t == self.length), np.zeros(self.num_envs, bool)
        if self.t < self.length:
            return reached, reached[:, 0], never, ended, {}
        return self.reset()[0], reached[:, 0], never, ended, {"final_obs": reached, "_final_obs": ended}


class OneDrift(gym.Env[np.ndarray, np.ndarray]):
    """One row of `Drift`, for d3rlpy."""

    observation_space, action_space = OBSERVATION, ACTION

    def __init__(self, length: int) -> None:
        self.rows = Drift(1, length)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.rows.reset()[0][0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        x, reward, terminated, truncated, _ = self.rows.step(action[None])
        return x[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


def draw_episodes(episodes: int, length: int) -> list[Episode]:
    """Episodes of random numbers."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.uniform(-1, 1, shape).astype(np.float32)

    return [Episode(draw(length + 1, D), draw(length, A), draw(length), False) for _ in range(episodes)]
