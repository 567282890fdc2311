"""Train the cells of a suite in several processes; finished cells stay finished.

A cell is an ordinary run folder, with `score.json` once it is trained and evaluated. Started again, the suite
skips finished cells and resumes half-trained ones from their last checkpoint.
"""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from rlmin.runs.checkpoint import write_atomic
from rlmin.suite.cells import Cell, Row, differences

SCORE = "score.json"


def run_cells(cells: Sequence[Cell], out: Path, *, jobs: int = 1) -> list[Row]:
    """Train the cells that are not finished yet.

    Args:
        cells: of one suite.
        out: folder of the run folders.
        jobs: processes, each on one thread.

    Returns:
        the rows of all cells, in order.

    Raises:
        ValueError: a finished cell was trained with other settings, or a cell failed; the others are kept.
    """
    todo = [cell for cell in cells if read_finished(cell, out) is None]
    done = len(cells) - len(todo)
    print(f"{len(cells)} cells, {done} done before, {len(todo)} to train, {jobs} at a time", file=sys.stderr)
    failed: list[str] = []
    with _pool(jobs) as pool:
        waiting = {pool.submit(_train_in_process, cell, out): cell for cell in todo}
        for future in as_completed(waiting):
            cell, done = waiting[future], done + 1
            error = future.exception()
            if error is not None:
                failed.append(f"{cell.task} {cell.encoder} seed {cell.seed}: {error}")
                print(f"[{done}/{len(cells)}] failed: {failed[-1]}", file=sys.stderr, flush=True)
                continue
            row = future.result()
            line = f"{cell.task} {cell.encoder} seed {cell.seed}: {row['final']:.3f}, {row['seconds']:.0f} s"
            print(f"[{done}/{len(cells)}] {line}", file=sys.stderr, flush=True)
    if failed:
        raise ValueError(f"{len(failed)} of {len(cells)} cells failed, the first: {failed[0]}")
    rows = [read_finished(cell, out) for cell in cells]
    return [row for row in rows if row is not None]


def read_or_run(cells: Sequence[Cell], out: Path, *, jobs: int, report: bool, others: int = 0) -> list[Row]:
    """The rows of the finished cells with `report`, else those of `run_cells`.

    Args:
        others: rows that the caller has from elsewhere; with any, no cell needs to be finished here.

    Raises:
        ValueError: no cell is finished; see also `run_cells`.
    """
    if not report:
        return run_cells(cells, out, jobs=jobs)
    rows = [row for cell in cells if (row := read_finished(cell, out)) is not None]
    if not rows and not others:
        raise ValueError(f"{out}: no cell is finished there")
    return rows


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of their own group, so that Ctrl-C only reaches this one, which makes them save and stop."""
    apart = getattr(os, "setpgrp", None)
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=apart)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield pool
    except KeyboardInterrupt:
        print("stopping; finished cells are kept, the same command continues from here", file=sys.stderr, flush=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        if in_main:
            signal.signal(signal.SIGTERM, before)


def read_finished(cell: Cell, out: Path) -> Row | None:
    """The row of a finished cell; None if it is not finished.

    Raises:
        ValueError: it was trained with other settings.
    """
    file = cell.folder(out) / SCORE
    if not file.is_file():
        return None
    row: Row = json.loads(file.read_text())
    differ = differences(*({**settings, "trust": None} for settings in (row["settings"], cell.settings)))
    if differ:
        raise ValueError(f"{file.parent}: trained with {differ}; choose another --out, or delete that folder")
    return row


def _train_in_process(cell: Cell, out: Path) -> Row:
    try:
        return train_cell(cell, out)
    except SystemExit:  # stopped by request, and saved
        os._exit(1)  # otherwise this process would begin the cell that the pool has already given to it


def train_cell(cell: Cell, out: Path) -> Row:
    """Train or resume one cell, evaluate it and write its row. See `run_cells`."""
    torch.set_num_threads(1)
    folder, began = cell.folder(out), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # output of runs and games would mix
        row = cell.run(folder)
    row |= {"seconds": round(time.perf_counter() - began, 1), "settings": dict(cell.settings)}
    write_atomic(folder / SCORE, json.dumps(row, indent=1).encode())
    return row
