"""Worker processes: a failed one is named in the error, and all of them end with the process that started them.

Gymnasium's AsyncVectorEnv runs each environment in a process. By itself it shows a killed worker as an EOFError, waits
forever for one that hangs or raises an error that cannot be pickled, and leaves all workers behind when the trainer is
killed. Here the parent watches its ends of the pipes (`watch`), and the workers watch their parent (`worker`). The
pipes of stable-baselines3's SubprocVecEnv are watched too; its workers remain its own.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from queue import Empty
from typing import Any

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from rlmin.vector.faults import EnvError, in_words

STEP_TIMEOUT = 600.0
"""Seconds that a worker may take to answer by default."""
PIPES, REMOTES = "parent_pipes", "remotes"
"""Names of the ends of the pipes in AsyncVectorEnv and SubprocVecEnv."""
GRACE = 5.0
"""Seconds to wait for a killed process to end, and for an error that was sent to arrive."""


class WorkerTraceback(Exception):
    """Traceback of a worker as text: the cause of an `EnvError`."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class WatchedPipe:
    """The parent's end of the pipe to one worker: a worker that ends, hangs or fails is an `EnvError` that names it.

    Args:
        pipe: pipe that the environment made.
        env: its AsyncVectorEnv or SubprocVecEnv; all workers are stopped if one fails.
        index: index of the worker.
        timeout: seconds to wait for an answer; None: no limit.
    """

    def __init__(self, pipe: Connection, env: Any, index: int, timeout: float | None) -> None:
        self.pipe, self.env, self.index, self.timeout = pipe, env, index, timeout
        self.process = env.processes[index]
        self.asked = "start"

    @property
    def closed(self) -> bool:
        return self.pipe.closed

    def close(self) -> None:
        self.pipe.close()

    def poll(self, timeout: float = 0.0) -> bool:
        return self.pipe.poll(timeout)

    def send(self, message: tuple[str, Any]) -> None:
        self.asked = message[0].lstrip("_")
        try:
            self.pipe.send(message)
        except OSError:
            raise self._fail(self._describe_end()) from None

    def recv(self) -> Any:
        try:
            answer = self._receive()
        except BaseException:  # including Ctrl-C: closing would wait for the answer again
            stop(self.env)
            raise
        return self._check_answer(answer)

    def _check_answer(self, answer: Any) -> Any:
        """The answer of a worker."""
        return answer

    def _receive(self) -> Any:
        ready = wait([self.pipe, self.process.sentinel], self.timeout)
        if not ready:
            hint = "step_timeout sets how long to wait, None for ever"
            raise self._fail(f"no answer to {self.asked} within {self.timeout:g} s; {hint}")
        try:
            if self.pipe not in ready and not self.pipe.poll(0):
                raise EOFError
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._fail(self._describe_end()) from None

    def _fail(self, why: str) -> EnvError:
        stop(self.env)
        spec: Any = getattr(self.env, "spec", None)
        of = "" if spec is None else f" of {spec.id}"
        return EnvError(f"worker {self.index}{of} (process {self.process.pid}): {why}")

    def _describe_end(self) -> str:
        self.process.join(GRACE)
        code = self.process.exitcode
        if code is None:
            return "it closed its pipe"
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            return f"killed by {name} during {self.asked}" + (", as where memory runs out" if name == "SIGKILL" else "")
        return f"ended with exit code {code} during {self.asked}"


class WatchedAsyncPipe(WatchedPipe):
    """The pipe of an AsyncVectorEnv, whose workers send the errors of their environments."""

    def _check_answer(self, answer: Any) -> Any:
        if isinstance(answer, tuple) and len(answer) == 2 and answer[1] is False:
            raise self._rebuild_error()
        return answer

    def _rebuild_error(self) -> EnvError:
        """The error that the worker sent, or one that says that it could not be sent."""
        queue: Any = self.env.error_queue
        try:
            _, kind, value, trace = queue.get(timeout=GRACE)
        except Empty:
            return self._fail(f"{self.asked} failed, with an error that could not be sent")
        found = self._fail(f"{self.asked} failed ({value if kind is EnvError else f'{kind.__name__}: {value}'})")
        found.__cause__ = WorkerTraceback(trace)
        return found


def watch(env: Any, timeout: float | None = STEP_TIMEOUT) -> None:
    """Name failed workers in errors, and stop all workers, from now on.

    Args:
        env: an AsyncVectorEnv, or a SubprocVecEnv of stable-baselines3.
        timeout: see `WatchedPipe`.
    """
    kind, name = (WatchedAsyncPipe, PIPES) if isinstance(env, AsyncVectorEnv) else (WatchedPipe, REMOTES)
    pipes = getattr(env, name)
    if not all(isinstance(pipe, WatchedPipe) for pipe in pipes):
        setattr(env, name, [kind(pipe, env, i, timeout) for i, pipe in enumerate(pipes)])


def has_processes(env: Any) -> bool:
    """Whether a VecEnv of stable-baselines3 is a SubprocVecEnv, or keeps its processes as one does."""
    pipes, processes = getattr(env, REMOTES, None), getattr(env, "processes", None)
    return isinstance(pipes, list | tuple) and isinstance(processes, list) and len(pipes) == len(processes) > 0


def stop(env: Any) -> None:
    """Kill the workers of an environment without waiting for their answers; it is closed afterwards."""
    if env.closed:
        return
    env.closed = True
    for process in env.processes:
        if process.exitcode is None:
            process.kill()
    for pipe in getattr(env, PIPES if isinstance(env, AsyncVectorEnv) else REMOTES):
        if pipe is not None:
            pipe.close()
    for process in env.processes:
        process.join(GRACE)


def worker(index: int, make: Any, pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *more: Any) -> None:
    """Gymnasium's own worker, made to end with its parent and to send every error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plain: Any = PlainErrors(errors)
    _async_worker(index, make, pipe, parent_pipe, memory, plain, *more)


class PlainErrors:
    """A queue of errors as text: an environment's error may not be picklable, or not be rebuildable."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, error: tuple[int, type[BaseException], BaseException, str]) -> None:
        index, _, value, trace = error
        self.queue.put((index, EnvError, in_words(value), trace))


def _end_with_parent() -> None:
    """Wait until the parent is gone, and end this process.

    A sibling forked later may hold the parent's end of the pipe, so this checks the parent's process id too. The
    kernel's signal for it (PDEATHSIG) would already come when the thread that started this process ends.
    """
    parent, number = multiprocessing.parent_process(), os.getppid()
    while parent is not None and parent.is_alive() and os.getppid() == number:
        parent.join(2.0)
    os._exit(1)
