"""Wrappers of single environments that make a task depend on memory, or add inputs that a policy needs.

The wrappers of vector environments have the same names in `rlmin.wrappers.vector`.
"""

from rlmin.wrappers.delayed_reward import DelayedReward
from rlmin.wrappers.flicker import FrameFlicker
from rlmin.wrappers.hidden_velocity import HiddenVelocity
from rlmin.wrappers.noise import ObservationNoise
from rlmin.wrappers.previous import PreviousAction, PreviousReward
from rlmin.wrappers.return_to_go import ReturnToGo
from rlmin.wrappers.sticky import StickyAction
from rlmin.wrappers.time_step import TimeStep

__all__ = [
    "DelayedReward",
    "FrameFlicker",
    "HiddenVelocity",
    "ObservationNoise",
    "PreviousAction",
    "PreviousReward",
    "ReturnToGo",
    "StickyAction",
    "TimeStep",
]
