"""Running many jobs: a lost attempt costs its job a retry and nothing else."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rlmin.commands.signals import handle_signals
from rlmin.suite.executors.job import Attempt, Executor, Job, Lost
from rlmin.suite.executors.marker import put_marker

TICK = 1.0
"""Seconds between two checks of the running attempts."""


class Event(NamedTuple):
    """The outcome of an attempt."""

    job: Job
    error: str | None  # None: the job is done
    again: bool  # Whether another attempt follows


def run_jobs(
    jobs: Iterable[Job],
    executor: Executor,
    *,
    folder: Path,
    retries: int,
    on_tick: Callable[[], None] = lambda: None,
) -> Generator[Event]:
    """Run every job; yields the outcome of each attempt as it ends.

    Args:
        jobs: with names that differ; the next one is taken as soon as there is room for it.
        executor: runs attempts.
        folder: shared by all nodes; made where there is none.
        retries: further attempts at a job whose process was lost.
        on_tick: called about once a second.

    Raises:
        ValueError, ImportError: the executor cannot run anything here.
        KeyboardInterrupt: a signal came; what ran has been stopped, and saved.
    """
    new = iter(jobs)
    waiting = deque((job, 0) for job in islice(new, 1))
    if not waiting:  # nothing needs to be started
        return
    running: dict[Hashable, tuple[Job, int]] = {}
    with put_marker(folder) as marker, executor.open(folder):
        while waiting or running:
            room = executor.slots - len(running)
            waiting.extend((job, 0) for job in islice(new, max(room - len(waiting), 0)))
            chosen = [waiting.popleft() for _ in range(min(len(waiting), room))]
            handles = executor.submit([Attempt(job, marker) for job, _ in chosen]) if chosen else ()
            running |= dict(zip(handles, chosen, strict=True))
            for handle in executor.wait(running, TICK):
                job, lost = running.pop(handle)
                event = _end(job, lost + 1, executor, handle, retries)
                if event.again:
                    waiting.append((job, lost + 1))
                yield event
            waiting.extend((job, 0) for job in islice(new, 0 if running or waiting else 1))
            on_tick()


def _end(job: Job, attempts: int, executor: Executor, handle: Hashable, retries: int) -> Event:
    """The outcome of the attempt of this number."""
    try:
        return Event(job, executor.result(handle), again=False)
    except Lost as error:
        if attempts <= retries:
            return Event(job, f"{error}; retry {attempts} of {retries}", again=True)
        return Event(job, f"{error}, {attempts} times; see --retries", again=False)


def stop_by_signal() -> AbstractContextManager[None]:
    """In here SIGTERM is a KeyboardInterrupt, as Ctrl-C is. Main thread only."""
    return handle_signals(signal.SIGTERM, by=signal.default_int_handler)
