"""What `rlmin tune` takes beside the settings of a run."""

from dataclasses import dataclass
from typing import Annotated, Literal

from rlmin.settings import Count, Range
from rlmin.suite.executors.options import ExecutorOptions


@dataclass(frozen=True, kw_only=True)
class TuneOptions(ExecutorOptions):
    """Look for better settings; the same command goes on where it stopped. Each trial trains several seeds."""

    trials: Count = 30  # Number of trials, those that were stopped early included
    space: str | None = None  # Search space, a .yaml file; None: the one for the algorithm
    seeds: Annotated[int, Range(least=1, most=100)] = 3  # Number of seeds that each trial trains
    objective: Literal["worst", "iqm", "mean"] = "worst"  # Score of a trial, of its seeds' returns; iqm: middle half
    checks: Annotated[int, Range(least=1, most=1000)] = 8  # Number of evaluations of a trial, at equal distances
    episodes: Count = 50  # Number of greedy episodes of each seed in an evaluation
    pruner: Literal["median", "asha", "none"] = "median"  # Rule that stops trials early; asha: successive halving
    startup: Count = 10  # Number of trials with settings drawn at random, before the search learns from them

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on != "local" and self.jobs is None:
            raise ValueError(
                f"on={self.on!r}: name --jobs N, since a trial learns from those that ended before it began"
            )
