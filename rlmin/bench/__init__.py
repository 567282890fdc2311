"""Benchmarks: the cost of rlmin beside that of other libraries, measured on your machine.

One file per benchmark; its docstring says what it measures and how. Each defines

    run(options) -> Table          measure; rows, targets and what was skipped
    draw(table, figure) -> None    the picture beside the table

and its name stands in `NAMES` below. They share timing.py (contenders take turns, medians), answering.py (processes
that answer on request), products.py (matrix products alone), peers.py (other libraries' code), report.py (table, CSV
and PNG) and machine.py (the machine).
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType

NAMES = (
    "scan",
    "cell",
    "act",
    "update",
    "count",
    "growth",
    "train",
    "recurrent_policy",
    "deploy",
    "overhead",
    "busy",
    "ranks",
    "plan",
    "envs",
    "decision",
)
"""Every benchmark, in the order of `all`; rlmin/bench/NAME.py."""


def module(name: str) -> ModuleType:
    """The benchmark of that name."""
    return importlib.import_module(f"rlmin.bench.{name}")


def summary() -> str:
    """Every benchmark and the first line of its docstring."""
    folder = Path(__file__).parent
    said = {name: ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) for name in NAMES}
    lines = [f"  {name:16} {(text or '').partition(chr(10))[0]}" for name, text in said.items()]
    return "\n".join([*lines, "  all              every one of these, one after the other"])
