"""Jobs as tasks of a Ray cluster: that of RAY_ADDRESS, else one that runs on this machine, else a new one here."""

import contextlib
import os
import platform
import socket
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlmin.checks import check_names, require
from rlmin.suite.executors.job import Attempt, Lost, describe
from rlmin.suite.executors.marker import Marker, put_marker

RESOURCES = ("num_cpus", "num_gpus", "memory", "resources")
"""Resources that a task may ask of Ray."""
STARTS = 3
"""Attempts to start a cluster on this machine: a node that is slow to start gives up."""
ANSWER = 10.0
"""Seconds until a cluster has to answer."""
GRACE = 30.0
"""Seconds that tasks may take to save when they are stopped."""
QUIET: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}


class OnRay:
    """Tasks of a Ray cluster.

    Args:
        slots: attempts at once; None: as many as the cluster has room for.
        resources: of a task, as in `ray.remote`.
    """

    def __init__(self, slots: int | None = None, *, resources: Mapping[str, Any] | None = None) -> None:
        self.slots = 1_000_000 if slots is None else slots  # Ray keeps what it has no room for
        self.resources = {"num_cpus": 1, **(resources or {})}
        check_names("resource of Ray", self.resources, RESOURCES)
        self.ray: Any = None
        self.running: set[Hashable] = set()

    @contextmanager
    def open(self, folder: Path) -> Iterator[None]:
        """See `Executor.open`."""
        self.ray = ray = require("ray", extra="ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        _connect(ray, os.environ.get("RAY_ADDRESS"))
        try:
            _check_nodes(ray, folder)
            yield
        finally:
            self._stop()
            ray.shutdown()

    def submit(self, attempts: Sequence[Attempt]) -> Sequence[Hashable]:
        """See `Executor.submit`."""
        task = self.ray.remote(max_retries=0, **self.resources)(_call)
        tasks: list[Hashable] = [task.remote(attempt) for attempt in attempts]
        self.running |= set(tasks)
        return tasks

    def wait(self, handles: Collection[Hashable], seconds: float) -> Collection[Hashable]:
        """See `Executor.wait`."""
        done: list[Hashable] = self.ray.wait(list(handles), num_returns=1, timeout=seconds)[0]
        return done

    def result(self, handle: Hashable) -> str | None:
        """See `Executor.result`."""
        self.running.discard(handle)
        errors = self.ray.exceptions
        lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.LocalRayletDiedError)
        try:
            answer: str | None = self.ray.get(handle)
        except lost:
            raise Lost("its process or node was killed, stopped or out of memory") from None
        except errors.RayError as error:  # the worker has no rlmin, or another version of a package
            return describe(error).rpartition("  ")[2][-400:]
        return answer

    def _stop(self) -> None:
        """Interrupt what still runs, and wait until it is saved."""
        tasks = list(self.running)
        for task in tasks:
            self.ray.cancel(task)
        if tasks:
            self.ray.wait(tasks, num_returns=len(tasks), timeout=GRACE)
        self.running = set()


def _call(attempt: Attempt) -> str | None:
    return attempt()


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one of this machine's processors.

    Raises:
        ValueError: the cluster does not answer, or none can be started.
    """
    if address and address != "local":
        _check_answer(address)
        try:
            ray.init(address=address, **QUIET)
        except Exception as error:  # of many types
            ray.shutdown()
            raise ValueError(f"RAY_ADDRESS={address}: no cluster answers there: {describe(error)[:300]}") from None
        return
    if not address:
        with contextlib.suppress(ConnectionError):
            ray.init(address="auto", **QUIET)
            return
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address="local", include_dashboard=False, **QUIET)
            return
        except Exception as error:
            _clean_up(ray)
            if attempt == STARTS:
                message = f"no cluster could be started on {platform.node()}: {describe(error)[:300]}"
                raise ValueError(
                    f"ray: {message}; start one by `ray start --head`, or name one by RAY_ADDRESS"
                ) from None


def _check_answer(address: str) -> None:
    """Raise a ValueError if nobody listens at an address of the form HOST:PORT or ray://HOST:PORT."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"RAY_ADDRESS={address}: expected HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        message = f"no cluster answers there ({describe(error)})"
        raise ValueError(f"RAY_ADDRESS={address}: {message}; start one by `ray start --head`") from None


def _clean_up(ray: Any) -> None:
    """End the processes that a failed start has left: all children of this process that Ray has started."""
    psutil = require("psutil", extra="ray")  # Ray brings it
    ray.shutdown()
    left = [child for child in psutil.Process().children(recursive=True) if _is_of_ray(child)]
    for child in left:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(left, timeout=10)


def _is_of_ray(process: Any) -> bool:
    try:
        return any("/ray/" in word or word.startswith("ray::") for word in process.cmdline())
    except Exception:  # it has ended
        return False


def _check_nodes(ray: Any, folder: Path) -> None:
    """Raise a ValueError if a node does not see the files of this one."""
    on = require("ray.util.scheduling_strategies", extra="ray").NodeAffinitySchedulingStrategy
    look = ray.remote(num_cpus=0, max_retries=2)(_look)
    with put_marker(folder) as marker:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        asked = [look.options(scheduling_strategy=on(node, soft=False)).remote(marker) for node in nodes]
        found: list[str | None] = ray.get(asked)
    for error in found:
        if error is not None:
            raise ValueError(error)


def _look(marker: Marker) -> str | None:
    began = time.monotonic()
    try:
        marker.check()
    except ValueError as error:
        return f"{error} (looked for {time.monotonic() - began:.0f} s)"
    return None
