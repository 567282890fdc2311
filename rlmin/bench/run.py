"""Running one benchmark, or all of them: measure, print, write."""

import time

import torch

from rlmin.bench import NAMES, module
from rlmin.bench.options import Options
from rlmin.bench.report import Table, write
from rlmin.checks import check_names, existing
from rlmin.scan import warm_up


def run(name: str, options: Options) -> list[Table]:
    """Measure, print and write one benchmark, or every one where `name` is "all".

    Raises:
        ValueError: no such benchmark, or no such device.
        OSError: results cannot be written; nothing has been measured.
    """
    check_names("benchmark", [name], [*NAMES, "all"])
    existing(options.device)
    options.folder.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        warm_up()
        return [_run(each, options) for each in (NAMES if name == "all" else (name,))]
    finally:
        torch.set_num_threads(before)


def _run(name: str, options: Options) -> Table:
    benchmark, began = module(name), time.perf_counter()
    table: Table = benchmark.run(options)
    files = write(name, table, benchmark.draw, options)
    print(f"{table}\n\n{name}: {' and '.join(map(str, files))}, {time.perf_counter() - began:.0f} s\n", flush=True)
    return table
