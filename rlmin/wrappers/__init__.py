"""Wrappers of single environments that make a task depend on memory, or add inputs that a policy needs.

The wrappers of vector environments have the same names in `rlmin.wrappers.vector`.
"""

from rlmin.wrappers.delayed_reward import DelayedReward as DelayedReward
from rlmin.wrappers.flicker import FrameFlicker as FrameFlicker
from rlmin.wrappers.hidden_velocity import HiddenVelocity as HiddenVelocity
from rlmin.wrappers.noise import ObservationNoise as ObservationNoise
from rlmin.wrappers.previous import PreviousAction as PreviousAction
from rlmin.wrappers.previous import PreviousReward as PreviousReward
from rlmin.wrappers.return_to_go import ReturnToGo as ReturnToGo
from rlmin.wrappers.sticky import StickyAction as StickyAction
from rlmin.wrappers.time_step import TimeStep as TimeStep
