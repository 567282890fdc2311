"""Frames that are lost: now and then nothing is seen."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlmin.envs.draws import uniform
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Like, Memory, Rows, Transform, counted, drawn, where

STREAM = 1
KEPT = "action_mask"
"""An entry of a Dict that is never lost: it says what may be done, it is not seen."""


class _FrameFlicker(Transform):
    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"FrameFlicker: probability={probability}: expected a number in [0, 1]")
        self.probability = probability

    def start(self, rows: Like) -> Memory:
        return counted(rows)

    def after(self, memory: Memory, action: Rows, reward: Rows, ended: Rows) -> tuple[Memory, Rows]:
        return {**memory, "t": memory["t"] + 1}, reward

    def see(self, memory: Memory, observation: Any) -> Any:
        lost: Any = uniform(*drawn(memory, STREAM)) < self.probability
        return _blank(lost if isinstance(memory["t"], Tensor) else lost.numpy(), observation)


def _blank(lost: Rows, observation: Any) -> Any:
    """`observation` with zeros in the rows that are lost."""
    if isinstance(observation, dict):
        return {name: part if name == KEPT else _blank(lost, part) for name, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_blank(lost, part) for part in observation)
    if isinstance(observation, str):  # no policy reads text
        return observation
    nothing = torch.zeros_like(observation) if isinstance(observation, Tensor) else np.zeros_like(observation)
    seen = where(lost, nothing, observation)
    return seen[()] if isinstance(observation, np.generic) else seen


class FrameFlicker(Wrapped):
    """With this probability, at every step anew, the whole observation is zeros (of a choice: its first value).

    What is lost depends on the seed, the episode and the step alone.

    Source: Hausknecht and Stone 2015 (arXiv:1507.06527), flickering Pong.
    """

    def __init__(self, env: gym.Env[Any, Any], probability: float = 0.5) -> None:
        super().__init__(env, _FrameFlicker(probability), probability=probability)


class VectorFrameFlicker(VectorWrapped):
    """`FrameFlicker` of every environment."""

    def __init__(self, env: VectorEnv[Any, Any, Any], probability: float = 0.5) -> None:
        super().__init__(env, _FrameFlicker(probability))
