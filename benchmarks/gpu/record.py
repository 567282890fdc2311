"""Rows of results, checks that go on after a failure, and clocks that wait for the device."""

import csv
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlmin.policy.precision import set_tf32

DRY = bool(os.environ.get("DRY"))
"""Whether this is a try on the CPU, at tiny sizes."""

OUT = Path(os.environ.get("OUT", "gpu-out"))
DEVICE = "cpu" if DRY else "cuda"

failures: list[str] = []
"""Checks that failed so far, by name."""


def add(what: str, number: float | str, unit: str = "", note: str = "") -> None:
    """Add a row to results.csv, and print it."""
    value = f"{number:.5g}" if isinstance(number, float) else str(number)
    print(f"   {what}: {value} {unit} {note}".rstrip(), flush=True)
    table = OUT / "results.csv"
    new = not table.exists()
    with table.open("a", newline="") as file:
        if new:
            csv.writer(file).writerow(["stage", "what", "value", "unit", "note"])
        csv.writer(file).writerow([os.environ.get("STAGE", "?"), what, value, unit, note])


def attempt(what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`. An error is recorded under the name `what`; the next check goes on. Then the result is None."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # a check may fail in any way
        traceback.print_exc()
        fail(what, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return None


def fail(what: str, why: str) -> None:
    """Record that a check has failed."""
    failures.append(what)
    add(f"FAILED {what}", why)


def wait() -> float:
    """Seconds on a clock, once the device has done its work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """Seconds that a call took, and its result."""
    began = wait()
    found = function(*args, **kwargs)
    return wait() - began, found


def set_precision(*, tf32: bool) -> None:
    """Choose TF32 or float32 for products and convolutions."""
    set_tf32(torch.device(DEVICE), tf32)
