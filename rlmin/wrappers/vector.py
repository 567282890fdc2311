"""The wrappers of this package for vector environments, in any autoreset mode, of arrays or of tensors."""

from rlmin.wrappers.delayed_reward import VectorDelayedReward as DelayedReward
from rlmin.wrappers.flicker import VectorFrameFlicker as FrameFlicker
from rlmin.wrappers.hidden_velocity import VectorHiddenVelocity as HiddenVelocity
from rlmin.wrappers.noise import VectorObservationNoise as ObservationNoise
from rlmin.wrappers.previous import VectorPreviousAction as PreviousAction
from rlmin.wrappers.previous import VectorPreviousReward as PreviousReward
from rlmin.wrappers.return_to_go import VectorReturnToGo as ReturnToGo
from rlmin.wrappers.sticky import VectorStickyAction as StickyAction
from rlmin.wrappers.time_step import VectorTimeStep as TimeStep

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
