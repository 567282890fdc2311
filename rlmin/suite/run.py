"""Train the cells of a suite, many at once; finished cells stay finished.

A cell is an ordinary run folder, with `score.json` once it is trained and evaluated: that file alone says that a cell
is done, wherever it was trained. Started again, the suite skips finished cells and resumes half-trained ones from their
last checkpoint.
"""

import contextlib
import functools
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from rlmin.files.lock import wait_until_free
from rlmin.files.read_json import read_json
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.header import number
from rlmin.suite.cells import Cell, Row, differences
from rlmin.suite.executors.job import Job
from rlmin.suite.executors.options import ExecutorOptions
from rlmin.suite.executors.run_jobs import run_jobs, stop_by_signal

SCORE = "score.json"
NUMBERS = ("final", "best", "steps", "seconds")
"""Entries of a row that every report reads."""


class View(Protocol):
    """What shows the progress of cells."""

    def say(self, line: str) -> None:
        """Print a line."""

    def look(self) -> None:
        """Called about once a second."""


class Lines:
    """A line for each cell that ends."""

    def say(self, line: str) -> None:
        """See `View.say`."""
        print(line, file=sys.stderr, flush=True)

    def look(self) -> None:
        """Nothing changes between two lines."""


PATIENCE = 60.0
"""Seconds that a cell waits for a process that still saves it: that of a command that was killed."""


def run_cells(
    cells: Sequence[Cell], out: Path, options: ExecutorOptions | None = None, *, view: View | None = None
) -> list[Row]:
    """Train the cells that are not finished yet.

    Args:
        cells: of one suite.
        out: folder of the run folders; all nodes share it.
        options: where cells are trained; None: one after the other, on this machine.
        view: shows progress; None: a line for each cell.

    Returns:
        the rows of all cells, in order.

    Raises:
        ValueError: a finished cell was trained with other settings, nothing can be run there, or a cell failed; the
            others are kept.
    """
    options, view, out = options or ExecutorOptions(), view or Lines(), out.resolve()
    executor = options.make_executor()
    todo = {cell.name: cell for cell in cells if read_finished(cell, out) is None}
    done, at_once = len(cells) - len(todo), "" if options.jobs is None else f", {options.jobs} at a time"
    view.say(f"{len(cells)} cells, {done} done before, {len(todo)} to train{at_once}")
    jobs = [Job(name, functools.partial(finish_cell, cell, out)) for name, cell in todo.items()]
    failed: list[str] = []
    running = run_jobs(jobs, executor, folder=out, retries=options.retries, on_tick=view.look)
    with _keep_what_is_done(), stop_by_signal(), contextlib.closing(running) as events:
        for event in events:
            done += not event.again
            row = read_finished(todo[event.job.name], out) if event.error is None else None
            error = event.error or ("" if row else f"{SCORE} is missing")
            if error and not event.again:
                failed.append(f"{event.job.name}: {error}")
            outcome = _describe(row) if row else error
            mark = "lost" if event.again else "failed" if error else f"{done}/{len(cells)}"
            view.say(f"[{mark}] {event.job.name}: {outcome}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(cells)} cells failed, the first: {failed[0]}")
    rows = [read_finished(cell, out) for cell in cells]
    return [row for row in rows if row is not None]


def _describe(row: Row) -> str:
    return ", ".join([*([] if row["final"] is None else [f"{row['final']:.3f}"]), f"{row['seconds']:.0f} s"])


@contextlib.contextmanager
def _keep_what_is_done() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("stopping; finished cells are kept, the same command continues from here", file=sys.stderr, flush=True)
        raise


def read_or_run(
    cells: Sequence[Cell], out: Path, options: ExecutorOptions, *, report: bool, others: int = 0
) -> list[Row]:
    """The rows of the finished cells with `report`, else those of `run_cells`.

    Args:
        others: rows that the caller has from elsewhere; with any, no cell needs to be finished here.

    Raises:
        ValueError: no cell is finished; see also `run_cells`.
    """
    if not report:
        return run_cells(cells, out, options)
    rows = [row for cell in cells if (row := read_finished(cell, out)) is not None]
    if not rows and not others:
        raise ValueError(f"{out}: no cell is finished there")
    return rows


def read_finished(cell: Cell, out: Path) -> Row | None:
    """The row of a finished cell; None if it is not finished.

    Raises:
        ValueError: it was trained with other settings.
    """
    file = cell.folder(out) / SCORE
    if not file.is_file():
        return None
    row: Row = read_json(file)
    own = {"task": cell.task, "encoder": cell.encoder, "seed": cell.seed}
    unplayed = not cell.plays and row.get("final") is None
    numbers = [row[name] for name in NUMBERS if name in row and not (unplayed and name == "final")]
    fits = "seed" in row and all(row.get(name, x) == x for name, x in own.items())  # one of many seeds names no task
    fits = fits and isinstance(row.get("settings"), dict)
    if not fits or not all(map(number, numbers)):
        raise ValueError(f"{file}: expected the row of a finished cell; delete the file to score the cell anew")
    differ = differences(*({**settings, "trust": None} for settings in (row["settings"], cell.settings)))
    if differ:
        raise ValueError(f"{file.parent}: trained with {differ}; choose another {cell.place}, or delete that folder")
    return row


def finish_cell(cell: Cell, out: Path) -> None:
    """Train a cell that is not finished: what an executor calls, perhaps after an attempt that was lost."""
    wait_until_free(cell.folder(out), seconds=PATIENCE)
    if read_finished(cell, out) is None:
        train_cell(cell, out)


def train_cell(cell: Cell, out: Path) -> Row:
    """Train or resume one cell, evaluate it and write its row. See `run_cells`."""
    torch.set_num_threads(1)
    folder, began = cell.folder(out), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # output of runs and games would mix
        row = cell.run(folder)
    row |= {"seconds": round(time.perf_counter() - began, 1), "settings": dict(cell.settings)}
    write_atomic(folder / SCORE, json.dumps(row, indent=1).encode())
    return row
