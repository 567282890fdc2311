"""Sticky actions: at some steps the environment repeats the previous action."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlmin.envs.draws import uniform
from rlmin.settings import Share
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, draw_key, start_count, where

STREAM = 3


class _StickyAction(Transform):
    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"StickyAction: probability={probability}: expected a number in [0, 1]")
        self.probability = probability

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        if not isinstance(action, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
            raise ValueError(f"StickyAction: expected a Discrete, Multi- or Box action space, got {action}")
        self.none = np.zeros(action.shape or (), dtype=action.dtype)
        return observation

    def start(self, rows: Like) -> Memory:
        return {**start_count(rows), "action": rows.full(self.none, self.none.dtype)}

    def act(self, memory: Memory, action: Rows) -> Rows:
        key, t = draw_key(memory, STREAM)
        stuck: Any = (uniform(key, t) < self.probability) & (t > 0)  # there is nothing to repeat at t = 0
        return where(stuck if isinstance(action, Tensor) else stuck.numpy(), memory["action"], action)[()]

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {**memory, "t": memory["t"] + 1, "action": action}, reward


class StickyAction(Wrapped):
    """With this probability, independently at every step, the previous action is executed again.

    The first action of an episode is never replaced. Which steps repeat depends only on seed, episode and
    step. Action masks are ignored.

    Source: Machado et al. 2018, sticky actions of the Arcade Learning Environment (arXiv:1709.06009).
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], probability: Share = 0.25) -> None:
        super().__init__(env, _StickyAction(probability), probability=probability)


class VectorStickyAction(VectorWrapped):
    """`StickyAction` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], probability: Share = 0.25) -> None:
        super().__init__(env, _StickyAction(probability))
