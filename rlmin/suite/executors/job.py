"""A job, an attempt at it, and the interface of executors, which run attempts."""

import os
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlmin.suite.executors.marker import Marker


@dataclass(frozen=True)
class Job:
    """A piece of work whose result is a file.

    Args:
        name: of the job in messages.
        work: what an attempt calls, without arguments. It can be pickled, writes the result, and begins where an
            earlier attempt was lost.
    """

    name: str
    work: Callable[[], object]


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, as a worker receives it.

    Args:
        job: the job.
        marker: file that the worker has to see before it works.
    """

    job: Job
    marker: Marker

    def __call__(self) -> str | None:
        """Work; returns the error as one line, None where there was none. A stopped attempt ends its process."""
        try:
            self.marker.check()
            self.job.work()
        except Exception as error:
            return describe(error)
        except BaseException:  # a signal stopped the work, which is saved
            os._exit(1)  # the executor counts the attempt as lost; this process has to take no other job
        return None


class Lost(Exception):
    """The process of an attempt has ended without an answer."""


class Executor(Protocol):
    """Where attempts run.

    Args:
        slots: attempts at once.
    """

    slots: int

    def open(self, folder: Path) -> AbstractContextManager[None]:
        """Start; at the end of the context everything that still runs is stopped, and saves.

        Args:
            folder: shared by all nodes.

        Raises:
            ValueError, ImportError: it cannot run anything here; nothing has been started.
        """

    def submit(self, attempts: Sequence[Attempt]) -> Sequence[Hashable]:
        """Begin attempts; returns a handle for each."""

    def wait(self, handles: Collection[Hashable], seconds: float) -> Collection[Hashable]:
        """The handles of attempts that have ended, after at most so many seconds."""

    def result(self, handle: Hashable) -> str | None:
        """The answer of an attempt that has ended.

        Raises:
            Lost: there is none.
        """


def describe(error: BaseException) -> str:
    """An error as one line; one that is no bad input comes with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError | ImportError) and text else f"{type(error).__name__}: {text}"
