"""Stages E1 and E2: rlmin's own benchmarks on the device, with fewer shapes and contenders."""

import importlib
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from record import DEVICE, DRY, OUT, add, attempt

from rlmin.bench.options import Options

CELLS = ("min_gru", "min_lstm", "gru", "nn.GRU", "nn.LSTM")
RESETS = ("min_gru with resets", "nn.GRU, split and pad", "nn.LSTM, split and pad")
SCANS = [(1, 1, 1), (128, 64, 64), (512, 64, 128), (128, 1024, 128), (128, 8192, 128), (4096, 8, 128), (65536, 1, 64)]


def run_benches(*names: str) -> None:
    runner: Any = importlib.import_module("rlmin.bench.run")
    runner.warm_up = lambda: None  # of the CPU's loops, which are not measured here
    folder = Path(os.environ.get("GPU_WORK", tempfile.gettempdir())) / "bench"
    options = Options(device=DEVICE, rounds=None if DRY else 5, out=folder, quick=DRY, threads=2)
    for name in names:
        _shorten(name)
        for table in attempt(f"bench {name}", runner.run, name, options) or ():
            for row in table.rows:
                words = [f"{key} {x:.4g}" if isinstance(x, float) else f"{key} {x}" for key, x in row.items()]
                add(f"bench {name}", "; ".join(words))
    if folder.exists():
        with tarfile.open(OUT / f"bench-{'-'.join(names)}.tgz", "w:gz") as archive:
            archive.add(folder, arcname="bench")


def _shorten(name: str) -> None:
    """Leave the shapes and contenders of a benchmark that say most about a GPU."""
    bench: Any = importlib.import_module(f"rlmin.bench.{name}")
    if name == "scan":
        bench.KERNELS = ("portable",) if DRY else ("gpu",)
        bench.SHAPES = bench.QUICK if DRY else SCANS
    elif name == "cell":
        bench.CONTENDERS = {key: bench.CONTENDERS[key] for key in (*CELLS, *RESETS)}
        bench.SHAPES = [(128, 64, 128), (128, 1024, 128), (4096, 8, 128)]
    elif name == "act":
        bench.BATCHES = (1, 64, 4096)
        bench.MIXERS = {key: bench.MIXERS[key] for key in ("min_gru", "min_lstm", "gru", "lstm", "attention")}
    elif name == "update":
        bench.ENCODERS, bench.WIDTHS = ("min_gru", "min_lstm"), (128,)
    elif name == "train":
        bench.TASKS = {}
        bench.LARGE = {key: task._replace(base=False) for key, task in bench.LARGE.items()}
        bench.OWN = {key: x for key, x in bench.OWN.items() if "lstm" not in key}
