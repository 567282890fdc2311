"""Compiled loops on torch's own threads.

Threads of our own would share the cores with torch's, which spin for milliseconds after each operation and wait for the
next. So a loop goes to the OpenMP runtime that torch has loaded, or, if that has no such entry (Windows), to a pool.
"""

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_pool: ThreadPoolExecutor | None = None


class Loop:
    """A C function of one table of integers; several threads can share one call: see `cpu_math.py`."""

    def __init__(self, compiled: Any) -> None:
        self._owner = compiled  # of the machine code
        self._address = ctypes.c_void_p(compiled.address)
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)  # releases the GIL

    def run(self, table: "ctypes.Array[ctypes.c_int64]", threads: int) -> None:
        """Run the loop over the rows of `table`, in `threads` threads."""
        if threads <= 1:
            self._call(table)
            return
        fork = _fork()
        if fork is not None:
            fork(self._address, table, threads, 0)
            return
        jobs = [pool().submit(self._call, table) for _ in range(threads - 1)]
        self._call(table)
        for job in jobs:
            job.result()


@functools.cache
def _fork() -> Any:
    """OpenMP's own "run this function in so many threads", from the runtime that torch is linked to."""
    try:
        fork = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    fork.argtypes, fork.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return fork


def pool() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="rlmin-scan")
    return _pool


def forget_threads() -> None:
    """A forked child inherits the pool object and none of its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_threads)
