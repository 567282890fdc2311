"""Drawing runs: `rlmin plot`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlmin.runs.groups import expand_seeds
from rlmin.runs.plots import plot_runs
from rlmin.settings import Positional, Settings, ShareBelowOne


@dataclass(frozen=True, kw_only=True)
class Plot(Settings):
    """Draw the learning curves of runs into one picture; runs that differ only in the seed share a line."""

    runs: Positional[tuple[Path, ...]]  # Run folders, or folders of many seeds
    file: tuple[Path, ...] = (Path("curves.png"),)  # Files to write: .png, .svg or .pdf
    over: Literal["steps", "time"] = "steps"  # Horizontal axis; time: seconds of training without interruptions
    columns: tuple[str, ...] = ()  # Columns of metrics.csv; none: return and success, or losses on logged data
    group: Literal["seeds", "none"] = "seeds"  # Lines: mean of the seeds and its 95 % interval, or one for each run
    smooth: ShareBelowOne = 0.0  # Weight of the past in a moving average of each run
    style: Literal["screen", "paper"] = "screen"  # Style; paper: panels of a column's width, 300 dots an inch
    band: Literal["mean", "iqm"] = "mean"  # Middle of the seeds that is drawn; iqm: interquartile mean
    relative_to: Path | None = None  # Run or folder of seeds whose line is 1, all others a ratio to it; None: none


def run_plot(options: Plot) -> str:
    """Draw; returns the files and, if there are several lines, the runs of each.

    Raises:
        ValueError: no run, or see `rlmin.runs.plots.plot_runs`.
    """
    if not options.runs:
        raise ValueError("plot: name at least one run folder")
    base = [] if options.relative_to is None else expand_seeds([options.relative_to])
    if len(base) > 1 and options.group == "none":
        raise ValueError(f"relative_to: {options.relative_to} holds {len(base)} seeds, name one of them, as {base[0]}")
    groups = plot_runs(
        expand_seeds(options.runs) + base,
        options.file,
        columns=options.columns,
        over=options.over,
        by_seed=options.group == "seeds",
        smooth=options.smooth,
        style=options.style,
        band=options.band,
        relative_to=base[0] if base else None,
        say=print,
    )
    lines = [f"{group.name}: {', '.join(map(str, group.folders))}" for group in groups]
    return "\n".join([*lines, *map(str, options.file)])
