"""Lost frames: at some steps the observation is empty."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlmin.envs.draws import uniform
from rlmin.settings import Share
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Drawing, Memory, Rows, draw_key, where

STREAM = 1
KEPT = "action_mask"
"""An entry of a Dict that is never lost: it only says which actions are legal."""


class _FrameFlicker(Drawing):
    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"FrameFlicker: probability={probability}: expected a number in [0, 1]")
        self.probability = probability

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        self.seen = observation
        return observation

    def see(self, memory: Memory, observation: Any) -> Any:
        lost: Any = uniform(*draw_key(memory, STREAM)) < self.probability
        return _blank(lost if isinstance(memory["t"], Tensor) else lost.numpy(), observation, self.seen)


def _blank(lost: Rows, observation: Any, space: gym.Space[Any]) -> Any:
    """`observation` with lost rows emptied."""
    if isinstance(space, gym.spaces.Dict):
        return {name: x if name == KEPT else _blank(lost, x, space[name]) for name, x in observation.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_blank(lost, x, part) for x, part in zip(observation, space, strict=True))
    if isinstance(observation, str):  # no policy reads text
        return observation
    first = space.start if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete) else 0
    if isinstance(observation, Tensor):
        nothing: Any = torch.zeros_like(observation) + torch.as_tensor(first, dtype=observation.dtype)
    else:
        nothing = np.zeros_like(observation) + np.asarray(first, dtype=np.asarray(observation).dtype)
    seen = where(lost, nothing, observation)
    return seen[()] if isinstance(observation, np.generic) else seen


class FrameFlicker(Wrapped):
    """With this probability, independently at every step, the whole observation is zeros (a choice: its first value).

    Which frames are lost depends only on seed, episode and step.

    Source: Hausknecht and Stone 2015 (arXiv:1507.06527), flickering Pong.
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], probability: Share = 0.5) -> None:
        super().__init__(env, _FrameFlicker(probability), probability=probability)


class VectorFrameFlicker(VectorWrapped):
    """`FrameFlicker` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], probability: Share = 0.5) -> None:
        super().__init__(env, _FrameFlicker(probability))
