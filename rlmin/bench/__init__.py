"""Benchmarks: what rlmin costs, beside what else it could cost, measured where you are.

One file a benchmark; its docstring says what is measured and how. Each defines

    run(options) -> Table          measure; rows, targets and what was skipped
    draw(table, figure) -> None    the picture beside the table

and its name stands in `NAMES` below. What they share: timing.py (contenders take turns, medians), products.py (matrix
products alone), peers.py (other libraries' code), report.py and machine.py (table, CSV and PNG, and where measured).
"""

import importlib
import time
from types import ModuleType

import torch

from rlmin.bench.options import Options as Options
from rlmin.bench.report import Table, write
from rlmin.checks import check_names
from rlmin.scan import warmup
from rlmin.vector.make import existing

NAMES = (
    "scan",
    "cell",
    "act",
    "update",
    "growth",
    "train",
    "recurrent_policy",
    "deploy",
    "overhead",
    "busy",
    "envs",
    "decision",
)
"""Every benchmark, in the order of `all`; rlmin/bench/NAME.py."""


def run(name: str, options: Options) -> list[Table]:
    """Measure, print and write one benchmark, or every one where `name` is "all".

    Raises:
        ValueError: no such benchmark, or a device that is not here.
        OSError: results cannot be written; nothing has been measured.
    """
    check_names("benchmark", [name], [*NAMES, "all"])
    existing(options.device)
    options.folder.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        warmup()
        return [_run(each, options) for each in (NAMES if name == "all" else (name,))]
    finally:
        torch.set_num_threads(before)


def _run(name: str, options: Options) -> Table:
    benchmark, began = module(name), time.perf_counter()
    table: Table = benchmark.run(options)
    files = write(name, table, benchmark.draw, options)
    print(f"{table}\n\n{name}: {' and '.join(map(str, files))}, {time.perf_counter() - began:.0f} s\n", flush=True)
    return table


def module(name: str) -> ModuleType:
    """The benchmark of that name."""
    return importlib.import_module(f"rlmin.bench.{name}")


def summary() -> str:
    """Every benchmark and the first line of its docstring."""
    lines = [f"  {name:16} {(module(name).__doc__ or '').partition(chr(10))[0]}" for name in NAMES]
    return "\n".join([*lines, "  all              every one of these, one after the other"])
