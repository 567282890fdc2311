"""Comparing runs: `rlmin compare`."""

from dataclasses import dataclass
from pathlib import Path

from rlmin.checks import check_names
from rlmin.files.atomic import write_atomic
from rlmin.runs.compare import compare_runs
from rlmin.runs.compare_tables import WRITERS, write_text
from rlmin.runs.groups import expand_seeds
from rlmin.runs.own_files import check_not_of_run
from rlmin.settings import Count, Positional, Settings


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
    """Compare runs at equal budgets; runs that differ in the seed alone are one row, the first row is the baseline."""

    runs: Positional[tuple[Path, ...]]  # Run folders, or folders of many seeds
    column: str | None = None  # Column of metrics.csv, more is better; None: greedy return, or return while training
    at: Count | None = None  # Step at which scores are taken; None: the end, which has to be the same for all runs
    threshold: float | None = None  # Score whose first step is reported; None: none
    file: tuple[Path, ...] = ()  # Files to write as well: .csv, .md, .tex or .txt


def run_compare(options: Compare) -> str:
    """The table as text; files are written beside.

    Raises:
        ValueError: no run, an unknown kind of file, or see `rlmin.runs.compare.compare_runs`.
    """
    if not options.runs:
        raise ValueError("compare: name at least one run folder")
    check_names("kind of table", [file.suffix.lower() for file in options.file], WRITERS)
    for file in options.file:
        check_not_of_run(file)
    found = compare_runs(expand_seeds(options.runs), column=options.column, at=options.at, threshold=options.threshold)
    for file in options.file:
        write_atomic(file, WRITERS[file.suffix.lower()](found).encode())
    return "\n".join([write_text(found), *map(str, options.file)])
