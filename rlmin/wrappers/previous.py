"""The previous action and reward as part of the observation."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, with_entry, with_leaf

ACTION, REWARD = "previous_action", "previous_reward"


class _PreviousAction(Transform):
    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        self.first: Any = 0  # value of the smallest action
        self.none: Any
        leaf: gym.Space[Any]
        if isinstance(action, spaces.Discrete):
            self.first, self.none, leaf = action.start, action.n, spaces.Discrete(int(action.n) + 1)
        elif isinstance(action, spaces.MultiDiscrete):
            self.first, self.none, leaf = action.start, action.nvec, spaces.MultiDiscrete(action.nvec + 1)
        elif isinstance(action, spaces.MultiBinary):
            self.none = np.full(action.shape, 2)
            leaf = spaces.MultiDiscrete(self.none + 1)
        elif isinstance(action, spaces.Box):
            self.none, leaf = np.zeros(action.shape), spaces.Box(action.low, action.high, dtype=np.float32)
        else:
            raise ValueError(f"PreviousAction: expected a Discrete, Multi- or Box action space, got {action}")
        self.dtype = np.float32 if isinstance(action, spaces.Box) else np.int64
        return with_leaf(observation, ACTION, leaf)

    def start(self, rows: Like) -> Memory:
        self.shift = rows.full(self.first, self.dtype)
        return {"action": rows.full(self.none, self.dtype)}

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        given = action - self.shift
        return {"action": given if isinstance(given, Tensor) else given.astype(self.dtype)}, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        return with_entry(observation, ACTION, memory["action"][()])  # a number, not an array without axes


class _PreviousReward(Transform):
    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        return with_leaf(observation, REWARD, spaces.Box(-np.inf, np.inf, (1,), np.float32))

    def start(self, rows: Like) -> Memory:
        return {"reward": rows.full([0.0])}

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {"reward": as_leaf(reward)}, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        return with_entry(observation, REWARD, memory["reward"])


def as_leaf(number: Rows) -> Rows:
    """One number a row, [...], as a float32 observation [..., 1]."""
    if isinstance(number, Tensor):
        return number.float().unsqueeze(-1)
    return np.asarray(number, dtype=np.float32)[..., None]


class PreviousAction(Wrapped):
    """Adds "previous_action", the action taken one step ago.

    A choice is counted from 0 and has one value more than the action space, its largest, which stands for "none" at
    the start of an episode; numbers (a Box) are zero there. A MultiBinary becomes MultiDiscrete, 2 being "none".
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env, _PreviousAction())


class VectorPreviousAction(VectorWrapped):
    """`PreviousAction` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env, _PreviousAction())


class PreviousReward(Wrapped):
    """Adds "previous_reward" [1] float32, the reward received one step ago, 0 at the start of an episode."""

    @checked
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env, _PreviousReward())


class VectorPreviousReward(VectorWrapped):
    """`PreviousReward` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env, _PreviousReward())
