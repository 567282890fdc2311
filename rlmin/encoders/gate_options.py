"""The options of minGRU and minLSTM: gates that see the input only, and a candidate."""

from dataclasses import dataclass

from rlmin.encoders.candidate import Candidate, check_candidate
from rlmin.encoders.time_scale import TimeScales, spread_bias


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """Options of minGRU and of minLSTM."""

    candidate: Candidate = "tanh"  # activation of the candidate
    time_scales: TimeScales = (2.0, 256.0)  # steps that the units remember at first, spread from the one to the other

    def __post_init__(self) -> None:
        check_candidate(self.candidate)
        if self.time_scales is not None:  # a file has a list
            shortest, longest = self.time_scales
            object.__setattr__(self, "time_scales", (float(shortest), float(longest)))
            spread_bias(1, (shortest, longest))
