"""The files of a run, which no report, table or picture replaces."""

from pathlib import Path

from rlmin.files.lock import LOCK
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY

METRICS = "metrics.csv"
OWN = (CONFIG, POLICY, LEARNER, METRICS, LOCK)


def check_not_of_run(file: Path) -> None:
    """Raise a ValueError if writing a file would replace one that a run consists of."""
    if file.name in OWN and any((file.parent / name).exists() for name in (POLICY, LEARNER)):
        raise ValueError(f"{file}: belongs to the run {file.parent}, which would lose it; choose another name")
