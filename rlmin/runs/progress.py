"""Progress: one line with steps, results, speed and the time left."""

import time
from types import TracebackType

from rlmin.vector.episodes import EpisodeStatistics

PLAIN_INTERVAL = 10.0
"""Seconds between two lines if the output is not a terminal (a log file, CI)."""


class Progress:
    """A live bar on a terminal, a line every ten seconds elsewhere, nothing unless `enabled`.

    Args:
        total: step at which training ends.
        first: number of steps taken before.
        enabled: whether to show anything.
    """

    def __init__(self, total: int, first: int = 0, *, enabled: bool = True) -> None:
        self.total, self.first, self.enabled = total, first, enabled
        self.printed = -PLAIN_INTERVAL

    def __enter__(self) -> "Progress":
        if self.enabled:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.live = Console().is_terminal
            self.bar = Bar(
                TextColumn("{task.percentage:3.0f}%"),
                BarColumn(bar_width=8),
                TimeRemainingColumn(compact=True),  # before the facts, so that a narrow terminal does not cut it off
                TextColumn("left  {task.completed:,.0f} steps  {task.fields[facts]}"),
                disable=not self.live,
            )
            self.task = self.bar.add_task("", total=self.total, completed=self.first, facts="")
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            self.bar.stop()

    def update(self, steps: int, speed: float, facts: str) -> None:
        """Show `steps` taken, the `facts`, which end in two spaces, and `speed` in steps a second."""
        if not self.enabled:
            return
        facts += f"{speed:,.0f} steps/s"
        if self.live:
            self.bar.update(self.task, completed=min(steps, self.total), facts=facts)
            return
        now = time.monotonic()
        if now - self.printed >= PLAIN_INTERVAL or steps >= self.total:
            self.printed = now
            left = max(self.total - steps, 0) / max(speed, 1e-9)
            print(f"{steps:>10,}/{self.total:,} steps  {facts}  {left:,.0f} s left", flush=True)


def describe_episodes(statistics: EpisodeStatistics) -> str:
    """ "return 0.93  success 98 %  " of recent episodes; empty before the first end."""
    if statistics.mean_return is None:
        return ""
    text = f"return {statistics.mean_return:.3g}  "
    rate = statistics.success_rate
    return text + (f"success {100 * rate:.0f} %  " if rate is not None else "")
