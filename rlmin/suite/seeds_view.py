"""The view of many runs while they train: a bar each on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rlmin.runs.logs import METRICS, STEPS, read_rows

RETURNS = "rollout/ep_rew_mean"
INTERVAL = 2.0
"""Seconds between two looks at the logs."""
PLAIN_INTERVAL = 30.0
"""Seconds between two lines if the output is not a terminal."""


class SeedsView:
    """Reads the steps and the return of every run from its metrics.csv, which all nodes write to the shared folder.

    Args:
        folders: name -> run folder.
        total: steps at which each ends.
    """

    def __init__(self, folders: Mapping[str, Path], total: int) -> None:
        self.folders, self.total = folders, total
        self.seen = 0.0
        self.printed = time.monotonic()

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}  {task.percentage:3.0f}%"),
            BarColumn(bar_width=16),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.completed:,.0f} steps  {task.fields[facts]}"),
            console=console,
            disable=not self.live,
        )
        self.tasks = {name: self.bars.add_task(name, total=self.total, facts="") for name in self.folders}
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look(now=True)
        self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self.live:
            self.bars.console.print(line, markup=False, highlight=False)
            return
        print(line, file=sys.stderr, flush=True)

    def look(self, *, now: bool = False) -> None:
        """Show where every run is, if it is time to."""
        time_ = time.monotonic()
        if not now and time_ - self.seen < (INTERVAL if self.live else PLAIN_INTERVAL):
            return
        self.seen = time_
        states = {name: read_state(folder) for name, folder in self.folders.items()}
        for name, (steps, score) in states.items():
            facts = "" if score is None else f"return {score:.3g}"
            self.bars.update(self.tasks[name], completed=min(steps, self.total), facts=facts)
        if not self.live and not now and time_ - self.printed >= PLAIN_INTERVAL:
            self.printed = time_
            shares = [f"{name} {100 * min(steps / self.total, 1):.0f} %" for name, (steps, _) in states.items()]
            print("  ".join(shares), file=sys.stderr, flush=True)


def read_state(folder: Path) -> tuple[int, float | None]:
    """Steps that a run has logged, and its last return while training; 0 and None where it has not begun."""
    try:
        rows = read_rows(folder / METRICS)[1]
        steps = max((int(float(row[STEPS])) for row in rows if row.get(STEPS)), default=0)
        returns = [float(row[RETURNS]) for row in rows if row.get(RETURNS)]
    except (OSError, ValueError):  # nothing there, or a row that is being written
        return 0, None
    return steps, returns[-1] if returns else None
