"""Drawing runs: `rlmin plot`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from rlmin.plots import plot_runs


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the learning curves of runs into one picture; runs that differ in the seed alone are one line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # run folders
    file: tuple[Path, ...] = (Path("curves.png"),)  # to write: .png, .svg or .pdf, one or several
    over: Literal["steps", "time"] = "steps"  # time: seconds of learning, interruptions not counted
    columns: tuple[str, ...] = ()  # of metrics.csv; none: return and success, or losses on logged data
    group: Literal["seeds", "none"] = "seeds"  # seeds: their mean and its 95 % interval; none: a line a run
    smooth: float = 0.0  # weight of the past in a moving average of each run, from 0 to below 1


def plotted(options: Plot) -> str:
    """Draw; returns the files and, where there are several lines, what each of them is.

    Raises:
        ValueError: no run, or see `rlmin.plots.plot_runs`.
    """
    if not options.runs:
        raise ValueError("plot: name at least one run folder")
    groups = plot_runs(
        options.runs,
        options.file,
        columns=options.columns,
        over=options.over,
        by_seed=options.group == "seeds",
        smooth=options.smooth,
        say=print,
    )
    lines = [f"{group.name}: {', '.join(map(str, group.folders))}" for group in groups]
    return "\n".join([*lines, *map(str, options.file)])
