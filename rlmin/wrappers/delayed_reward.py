"""Delayed rewards: their sum is paid every few steps or at the end."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rlmin.settings import Count
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, where


class _DelayedReward(Transform):
    def __init__(self, every: int | None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"DelayedReward: every={every}: expected at least 1, or None to pay at the end")
        self.every = every

    def start(self, rows: Like) -> Memory:
        return {"owed": rows.full(0.0, np.float64), "t": rows.full(0, np.int64)}

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        owed, t = memory["owed"] + reward, memory["t"] + 1
        paid = ended if self.every is None else ended | (t % self.every == 0)
        return {"owed": where(paid, 0.0 * owed, owed), "t": t}, where(paid, owed, 0.0 * reward)


class DelayedReward(Wrapped):
    """Pays the rewards of the last `every` steps together, and the rest at the end; None: everything at the end.

    An episode's return is unchanged.
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], every: Count | None = None) -> None:
        super().__init__(env, _DelayedReward(every), every=every)


class VectorDelayedReward(VectorWrapped):
    """`DelayedReward` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], every: Count | None = None) -> None:
        super().__init__(env, _DelayedReward(every))
