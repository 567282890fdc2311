"""The options of minGRU and minLSTM: gates that see the input only, and a candidate."""

from dataclasses import dataclass

from rlmin.encoders.candidate import Candidate
from rlmin.encoders.rising_floors import Floor
from rlmin.encoders.time_scale import Spread, spread_bias
from rlmin.settings import Settings, Share


@dataclass(frozen=True, kw_only=True)
class GateOptions(Settings):
    """Options of minGRU and of minLSTM."""

    candidate: Candidate = "tanh"  # Activation of the candidate
    time_scales: Spread | None = (2.0, 256.0)  # Range of steps that the units remember at first
    slow_units: Share = 0.0  # Share of the units that remember 100 times as long as the longest at first
    signed: bool = False  # Whether a unit can turn over: decays in (-1, 1) instead of (0, 1)
    forget_floor: Floor = 0.0  # Least share of the memory that stays at a step; rising: learned, more in deeper layers
    hard_gate: bool = False  # Whether gates reach their ends: a clipped line instead of a sigmoid
    output_gate: bool = False  # Whether a gate that sees the input stands between memory and output

    def __post_init__(self) -> None:
        super().__post_init__()
        compute_reach(self.signed, self.forget_floor)
        if self.time_scales is not None:
            spread_bias(1, self.time_scales)


def compute_reach(signed: bool, forget_floor: Floor) -> float:
    """The largest share of the candidate in an update: 2 if signed, else 1 - forget_floor; 1 below a rising floor.

    Raises:
        ValueError: both are given, or the floor is outside [0, 1).
    """
    if signed and forget_floor:
        raise ValueError(f"forget_floor={forget_floor}: expected 0 where signed, as decays then go down to -1")
    if forget_floor == "rising":
        return 1.0
    if not 0 <= forget_floor < 1:
        raise ValueError(f"forget_floor: expected a share in [0, 1), got {forget_floor}")
    return 2.0 if signed else 1.0 - forget_floor
