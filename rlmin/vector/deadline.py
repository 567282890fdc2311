"""A time limit for calls of an environment that manages processes in a way of its own.

Workers of gymnasium's AsyncVectorEnv and of stable-baselines3's SubprocVecEnv have pipes that can be watched, see
`workers.py`. Any other vector environment may wait for anything: a pipe, a queue, a socket. A signal to the main thread
ends every wait that Python knows, so a timer of the system sends one, and the call ends with an error.

Other threads cannot do this, as Python handles signals in the main one, nor can Windows, which has no such timer. There
a line says which call hangs. Code in C that does not come back to Python is never ended.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from rlmin.vector.faults import EnvError

HINT = "step_timeout sets how long to wait, None for ever"


class _OverError(BaseException):
    """The time is over; no `except Exception` of an environment catches it."""


@contextmanager
def limit_time(seconds: float | None, what: str) -> Iterator[None]:
    """In here a call may take `seconds`; None: any time.

    Args:
        seconds: after which the call ends.
        what: the environment and the call, for messages.

    Raises:
        EnvError: it took longer.
    """
    if seconds is None:
        yield
        return
    if not _has_timer():
        with _say_later(seconds, what):
            yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise _OverError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _OverError:
        raise EnvError(f"{what}: no answer within {seconds:g} s; {HINT}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_processes(env: Any) -> None:
    """Kill the processes that an environment, or one that it wraps, keeps in its attributes."""
    layer, seen = env, set[int]()
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        values = list(vars(layer).values()) if hasattr(layer, "__dict__") else []
        for process in _processes(values):
            if process.is_alive():
                process.kill()
        layer = (
            next((getattr(layer, name) for name in ("venv", "env") if name in vars(layer)), None) if values else None
        )


def _processes(values: list[Any]) -> Iterator[BaseProcess]:
    """Processes among values, and in lists and dicts of them."""
    for value in values:
        if isinstance(value, BaseProcess):
            yield value
        elif isinstance(value, list | tuple):
            yield from (one for one in value if isinstance(one, BaseProcess))
        elif isinstance(value, dict):
            yield from (one for one in value.values() if isinstance(one, BaseProcess))


def _has_timer() -> bool:
    """Whether a timer can end a call here; not where the user's own program has set one."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    return signal.getitimer(signal.ITIMER_REAL)[0] == 0


@contextmanager
def _say_later(seconds: float, what: str) -> Iterator[None]:
    """Print a line if this takes longer."""
    line = f"rlmin: warning: {what}: no answer within {seconds:g} s, and nothing here can end the call; {HINT}"
    timer = threading.Timer(seconds, print, [line], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
