"""Jobs in processes of this machine."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlmin.suite.executors.job import Attempt, Lost

PRELOAD = ["rlmin.suite.run"]
"""Modules that the server of new processes imports once, so that a process begins in milliseconds, not seconds."""
GRACE = 60.0
"""Seconds that a worker without its parent may take to save."""


class Local:
    """Processes of this machine, each of which takes one job after another.

    Every slot is a pool of one process, since a process that is killed breaks its pool.

    Args:
        slots: attempts at once.
    """

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.free: list[ProcessPoolExecutor] = []
        self.used: dict[Hashable, ProcessPoolExecutor] = {}

    @contextmanager
    def open(self, folder: Path) -> Iterator[None]:
        """See `Executor.open`."""
        try:
            yield
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            for pool in (*self.free, *self.used.values()):
                pool.shutdown(cancel_futures=True)
            self.free, self.used = [], {}

    def submit(self, attempts: Sequence[Attempt]) -> Sequence[Hashable]:
        """See `Executor.submit`."""
        return [self._submit(attempt) for attempt in attempts]

    def wait(self, handles: Collection[Hashable], seconds: float) -> Collection[Hashable]:
        """See `Executor.wait`."""
        futures: Any = handles
        return wait(futures, seconds, return_when=FIRST_COMPLETED).done

    def result(self, handle: Hashable) -> str | None:
        """See `Executor.result`."""
        assert isinstance(handle, Future)
        pool, error = self.used.pop(handle), handle.exception()
        if isinstance(error, BrokenProcessPool):
            pool.shutdown()
            raise Lost("its process was killed, stopped or out of memory")
        self.free.append(pool)
        if error is not None:  # of pickling
            raise error
        answer: str | None = handle.result()
        return answer

    def _submit(self, attempt: Attempt) -> Future[str | None]:
        while self.free:
            pool = self.free.pop()
            try:
                future = pool.submit(attempt)
            except BrokenProcessPool:  # its process was killed while it had nothing to do
                pool.shutdown()
                continue
            self.used[future] = pool
            return future
        pool = ProcessPoolExecutor(1, mp_context=_context(), initializer=_begin, initargs=(dict(os.environ),))
        future = pool.submit(attempt)
        self.used[future] = pool
        return future


def _context() -> Any:
    """How processes begin: forked from a server that has only imported, or, where there is none, spawned."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _begin(environment: dict[str, str]) -> None:
    """Take the parent's environment and leave its group, so that Ctrl-C reaches it alone; stop when it has gone.

    A forked process has the environment that the server was started with, which may be an old one.
    """
    os.environ.clear()
    os.environ.update(environment)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
