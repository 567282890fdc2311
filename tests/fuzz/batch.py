"""Thousands of cases in one process: a child tries one after the other, and is replaced where it hangs or dies.

What a case is follows from the name of its target and a number alone, so that every one can be made again.
"""

import contextlib
import json
import mmap
import os
import resource
import select
import signal
import struct
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from .case import MEMORY, SECONDS, Verdict, limit_memory, start_child, verdict_on
from .quick import QUICK, Case

KINDS = ("accepted", "refused")
LAYOUT = struct.Struct("=3q")
"""Shared with the child: the case it is at, and how many it has accepted and refused."""


def case_of(name: str, number: int) -> Case:
    """The case of a target that has this number."""
    case: Case = json.loads(json.dumps(QUICK[name].draw(Random(f"{name} {number}"))))
    return case


def verdict_of(name: str, case: Case) -> Verdict:
    """The verdict on a case, in this process."""
    return verdict_on(lambda: QUICK[name].run(json.loads(json.dumps(case))))


def many(name: str, first: int, count: int, *, seconds: float = SECONDS) -> Iterator[tuple[Case | None, Verdict, int]]:
    """Try cases; what comes out is each that went wrong, and the counts of the others: (None, verdict, how many)."""
    end = first + count
    QUICK[name].ready()  # once, and not in every child
    while first < end:
        with contextlib.closing(mmap.mmap(-1, LAYOUT.size)) as shared:
            LAYOUT.pack_into(shared, 0, first, 0, 0)
            lines, verdict = _batch(name, first, end, shared, seconds)
            at, *counts = LAYOUT.unpack_from(shared, 0)
        for number, *said in lines:
            yield case_of(name, number), Verdict(*said), 1
        if verdict is not None:
            yield case_of(name, at), verdict, 1
        yield from ((None, Verdict(kind), n) for kind, n in zip(KINDS, counts, strict=True))
        first = at + 1 if verdict is not None else end


def _batch(
    name: str, first: int, end: int, shared: mmap.mmap, seconds: float
) -> tuple[list[list[Any]], Verdict | None]:
    """Lines of what went wrong, and the verdict on the case at which the child did not go on, if any."""
    child, ready = start_child(lambda told: _child(name, first, end, shared, told))
    said, hangs = _listen(ready, shared, seconds)
    os.close(ready)
    if hangs:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [json.loads(line) for line in said.splitlines()]
    if hangs:
        return lines, Verdict("hang", "", f"after {seconds:g} s")
    return lines, Verdict("killed", f"exit code {code}") if code else None


def _listen(ready: int, shared: mmap.mmap, seconds: float) -> tuple[bytes, bool]:
    """All that the child says, and whether it stayed at one case."""
    said, at, since = b"", -1, time.monotonic()
    while True:
        if select.select([ready], [], [], 0.5)[0]:
            part = os.read(ready, 65536)
            if not part:
                return said, False
            said += part
        now = LAYOUT.unpack_from(shared, 0)[0]
        if now != at:
            at, since = now, time.monotonic()
        elif time.monotonic() > since + seconds:
            return said, True


def _child(name: str, first: int, end: int, shared: mmap.mmap, told: int) -> None:
    """Never returns."""
    try:
        warnings.simplefilter("ignore")
        limit_memory(MEMORY)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        counts = Counter[str]()
        for number in range(first, end):
            LAYOUT.pack_into(shared, 0, number, *(counts[kind] for kind in KINDS))
            verdict = verdict_of(name, case_of(name, number))
            counts[verdict.kind] += 1
            if verdict.kind not in KINDS:
                os.write(told, json.dumps([number, *verdict]).encode() + b"\n")
        LAYOUT.pack_into(shared, 0, end - 1, *(counts[kind] for kind in KINDS))
        os._exit(0)
    finally:
        os._exit(1)
