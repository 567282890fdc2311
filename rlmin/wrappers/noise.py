"""Observations with Gaussian noise."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlmin.envs.draws import normal
from rlmin.settings import NonNegative
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Drawing, Memory, draw_key

STREAM = 2


class _ObservationNoise(Drawing):
    def __init__(self, sigma: float) -> None:
        if not 0 <= sigma < np.inf:
            raise ValueError(f"ObservationNoise: sigma={sigma}: expected a number of at least 0")
        self.sigma = sigma

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        if not _numbers(observation):
            raise ValueError(f"ObservationNoise: nothing to add noise to, no part is a Box of floats: {observation}")
        self.inside = observation
        return observation

    def see(self, memory: Memory, observation: Any) -> Any:
        return self._noisy(memory, self.inside, observation, 0)

    def _noisy(self, memory: Memory, space: gym.Space[Any], observation: Any, first: int) -> Any:
        """One part of the observation, whose floats are numbered from `first` on."""
        if isinstance(space, spaces.Dict | spaces.Tuple):
            pairs = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
            changed: dict[Any, Any] = {}
            for name, part in pairs:
                changed[name] = self._noisy(memory, part, observation[name], first)
                first += _numbers(part)
            return {**observation, **changed} if isinstance(space, spaces.Dict) else tuple(changed.values())
        return observation + self._draws(memory, space, observation, first) if _numbers(space) else observation

    def _draws(self, memory: Memory, space: gym.Space[Any], observation: Any, first: int) -> Any:
        """[..., *space.shape] noise of one part, in the form of the observation."""
        key, t = draw_key(memory, STREAM)
        index = t.unsqueeze(-1) * _numbers(self.inside) + torch.arange(first, first + _numbers(space), device=t.device)
        noise = self.sigma * normal(key.unsqueeze(-1), index).reshape(*t.shape, *(space.shape or ()))
        return noise.to(observation.dtype) if isinstance(observation, Tensor) else noise.numpy().astype(space.dtype)


def _numbers(space: gym.Space[Any]) -> int:
    """Number of floats in an observation of `space`."""
    if isinstance(space, spaces.Dict):
        return sum(_numbers(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return sum(_numbers(part) for part in space.spaces)
    is_float = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    return int(np.prod(space.shape)) if is_float and isinstance(space, spaces.Box) else 0


class ObservationNoise(Wrapped):
    """Adds noise to every Box of floats; pictures of uint8 and choices do not change.

        observation[i] + sigma * normal(0, 1)

    The noise depends only on seed, episode and step; it may exceed the bounds of the Box.

    Args:
        env: one environment.
        sigma: standard deviation, in the units of the observation.
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], sigma: NonNegative) -> None:
        super().__init__(env, _ObservationNoise(sigma), sigma=sigma)


class VectorObservationNoise(VectorWrapped):
    """`ObservationNoise` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], sigma: NonNegative) -> None:
        super().__init__(env, _ObservationNoise(sigma))
