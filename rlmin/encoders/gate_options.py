"""The options of minGRU and minLSTM: gates that see the input only, and a candidate."""

from dataclasses import dataclass

from rlmin.encoders.candidate import Candidate
from rlmin.encoders.time_scale import Spread, spread_bias
from rlmin.settings import Settings


@dataclass(frozen=True, kw_only=True)
class GateOptions(Settings):
    """Options of minGRU and of minLSTM."""

    candidate: Candidate = "tanh"  # Activation of the candidate
    time_scales: Spread | None = (2.0, 256.0)  # Steps that the units remember at first, spread from one to the other

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_scales is not None:
            spread_bias(1, self.time_scales)
