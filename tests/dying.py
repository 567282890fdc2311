"""A process that dies, or meets a failing disk, at a chosen operation on files: what a save has to survive.

Every system call by which rlmin writes goes through `os`, so those are the moments there are. A death is one: the
child is gone, nothing cleans up, the parent looks at what is left.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

OPERATIONS = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "pwrite")

FIRST = 100
"""The exit code of a child that died at the first of them."""

When = Literal["before", "half", "after"]
"""Of an operation: when the process dies. "half" is of a write: half the bytes are written."""


class Counted:
    """Operations on files, counted; `meet(name, count, run, arguments)` decides what becomes of each."""

    def __init__(self, meet: Callable[[str, int, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
        self.meet, self.count, self.seen = meet, -1, list[tuple[str, Any]]()

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Put these in the place of those of `os`."""
        for name in OPERATIONS:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT and not arguments[1] & getattr(os, "O_DIRECTORY", 0):
                return real(*arguments, **options)  # of reading
            self.count += 1
            self.seen.append((name, arguments[0]))
            return self.meet(name, self.count, lambda *given: real(*(given or arguments), **options), arguments)

        return run


def died(act: Callable[[], object], at: int, when: When) -> str | None:
    """The name of the operation at which a child died that ran `act`; None where it came to the end."""

    def meet(name: str, count: int, run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if count != at:
            return run()
        if when == "half":
            run(arguments[0], arguments[1][: len(arguments[1]) // 2])
        elif when == "after":
            with contextlib.suppress(OSError):
                run()
        os._exit(FIRST + OPERATIONS.index(name))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads; none of them writes
        child = os.fork()
    if child == 0:
        try:
            Counted(meet).patch(pytest.MonkeyPatch())
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0 or code >= FIRST, f"the child failed with {code}"
    return OPERATIONS[code - FIRST] if code else None


def every_death(act: Callable[[], object]) -> Iterator[tuple[int, When]]:
    """Die once at every moment there is, one after the other; the caller looks, and puts things back, in between."""
    at = 0
    while (name := died(act, at, "before")) is not None:
        yield at, "before"
        if name == "write":
            died(act, at, "half")
            yield at, "half"
        died(act, at, "after")
        yield at, "after"
        at += 1
