"""Shift: changes to an environment for evaluation that the policy was not trained with."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rlmin.settings import NonNegative, Settings, Share
from rlmin.wrappers.flicker import FrameFlicker, VectorFrameFlicker
from rlmin.wrappers.noise import ObservationNoise, VectorObservationNoise
from rlmin.wrappers.sticky import StickyAction, VectorStickyAction

ForOne = Callable[[gym.Env[Any, Any], float], gym.Env[Any, Any]]
ForMany = Callable[[VectorEnv[Any, Any, Any], float], VectorEnv[Any, Any, Any]]

WRAPPERS: dict[str, tuple[ForOne, ForMany]] = {  # from the inside out: a lost frame has no noise
    "sticky": (StickyAction, VectorStickyAction),
    "noise": (ObservationNoise, VectorObservationNoise),
    "drop": (FrameFlicker, VectorFrameFlicker),
}


@dataclass(frozen=True, kw_only=True)
class Shift(Settings):
    """Noise, dropped frames and sticky actions; all zero: no change."""

    noise: NonNegative = 0.0  # Standard deviation of Gaussian noise on observations of floats
    drop: Share = 0.0  # Probability that a frame is lost: all zeros
    sticky: Share = 0.0  # Probability that the previous action is repeated

    @property
    def shift(self) -> "Shift":
        """Only these three settings of a subclass that has more."""
        return Shift(noise=self.noise, drop=self.drop, sticky=self.sticky)

    def __str__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {value:g}" for name, value in given.items() if value)

    def single(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """One environment, shifted."""
        for name, (wrapper, _) in WRAPPERS.items():
            env = wrapper(env, getattr(self, name)) if getattr(self, name) else env
        return env

    def vector(self, env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
        """A vector environment, shifted.

        Raises:
            ValueError: a value lies outside its range, or noise is set and no observation is a float.
        """
        for name, (_, wrapper) in WRAPPERS.items():
            env = wrapper(env, getattr(self, name)) if getattr(self, name) else env
        return env
