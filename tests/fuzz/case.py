"""One case in a process of its own, with limited memory and time, and the verdict on it."""

import contextlib
import faulthandler
import json
import linecache
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import rlmin
from rlmin.vector.faults import EnvError

SECONDS = 60
"""After which a case hangs."""
MEMORY = 3 * 2**30
"""Address space that a case may take."""
OURS = (ValueError, TypeError, FloatingPointError, OSError, ImportError, EnvError)
FAULTS = ("traceback", "accident", "hang", "memory", "killed", "difference")
"""Verdicts that are faults. An accident is an error of the right kind that nobody raised on purpose."""
LIBRARY = str(Path(rlmin.__file__).parent)


class Verdict(NamedTuple):
    """What became of a case."""

    kind: str  # "accepted", "refused", or one of `FAULTS`
    error: str = ""  # class of the error
    words: str = ""  # its text, or where it was raised


class DifferenceError(Exception):
    """Two ways that have to agree do not."""


class RefusedError(Exception):
    """A command said how it is used."""


class BadEndError(Exception):
    """A command ended otherwise than by its own rules."""


def start_child(run: Callable[[int], None]) -> tuple[int, int]:
    """Fork: `run(told)` in a child, which writes to `told` and never returns. Its number, and where to read."""
    ready, told = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads, which sleep
        child = os.fork()
    if child == 0:
        os.close(ready)
        run(told)
    os.close(told)
    return child, ready


def limit_memory(more: int) -> None:
    """Let this process take `more` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def tried(act: Callable[[], object], *, seconds: float = SECONDS, memory: int = MEMORY) -> Verdict:
    """The verdict on `act`, run in a child that is killed where it takes longer."""
    child, ready = start_child(lambda told: _child(act, told, memory))
    said = _read(ready, time.monotonic() + seconds)
    os.close(ready)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it, if it hangs, and the processes that it left
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said is None:
        return Verdict("hang", "", f"after {seconds:g} s")
    return Verdict(*json.loads(said)) if said else Verdict("killed", f"exit code {code}")


def _read(ready: int, deadline: float) -> bytes | None:
    """All that the child says; None where it does not end in time."""
    said = b""
    while True:
        if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        part = os.read(ready, 65536)
        if not part:
            return said
        said += part
        if said.endswith(b"\n"):
            return said


def _child(act: Callable[[], object], told: int, memory: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        faulthandler.disable()
        warnings.simplefilter("ignore")
        limit_memory(memory)
        verdict = verdict_on(act)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(told, json.dumps(verdict).encode() + b"\n")
        os._exit(0)
    except BaseException as error:
        os.write(told, json.dumps(("killed", type(error).__name__, str(error)[:200])).encode() + b"\n")
    finally:
        os._exit(1)


def verdict_on(act: Callable[[], object]) -> Verdict:
    """The verdict on `act`, run in this process."""
    try:
        act()
    except DifferenceError as error:
        return Verdict("difference", "", str(error)[:500])
    except MemoryError as error:
        return Verdict("memory", "MemoryError", _place(error))
    except RefusedError as error:
        return Verdict("refused", "", str(error))
    except BadEndError as error:
        return Verdict("traceback", "", str(error)[:500])
    except OURS as error:
        kind, words = type(error).__name__, str(error)
        if not on_purpose(error):
            return Verdict("accident", kind, f"{words[:200]} -- {_place(error)}")
        return Verdict("refused", kind, words[:300])
    except BaseException as error:
        return Verdict("traceback", type(error).__name__, f"{str(error)[:200]} -- {_place(error)}")
    return Verdict("accepted")


def on_purpose(error: BaseException) -> bool:
    """Whether a `raise` statement of rlmin's raised it, or the system said no to a file that rlmin opened."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    ours = last.filename.startswith(LIBRARY)
    if isinstance(error, OSError) and error.errno is not None:
        return any(frame.filename.startswith(LIBRARY) for frame in frames)
    return ours and linecache.getline(last.filename, last.lineno or 0).strip().startswith("raise")


def _place(error: BaseException) -> str:
    """The last two lines of rlmin's, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(LIBRARY)][-2:]
    return ", ".join(dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*own, *frames[-1:]]))
