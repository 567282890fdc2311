"""The time step as part of the observation."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rlmin.settings import Count
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.previous import as_leaf
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, with_entry, with_leaf

TIME = "time_step"


class _TimeStep(Transform):
    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"TimeStep: limit={limit}: expected at least 1, or None to count steps")
        self.limit = limit

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        return with_leaf(observation, TIME, spaces.Box(0, np.inf, (1,), np.float32))

    def start(self, rows: Like) -> Memory:
        return {"t": rows.full(0, np.int64)}

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {"t": memory["t"] + 1}, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        return with_entry(observation, TIME, as_leaf(memory["t"] / (self.limit or 1)))


class TimeStep(Wrapped):
    """Adds "time_step" [1] float32: steps taken in the episode, divided by `limit` if there is one."""

    @checked
    def __init__(self, env: gym.Env[Any, Any], limit: Count | None = None) -> None:
        super().__init__(env, _TimeStep(limit), limit=limit)


class VectorTimeStep(VectorWrapped):
    """`TimeStep` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], limit: Count | None = None) -> None:
        super().__init__(env, _TimeStep(limit))
