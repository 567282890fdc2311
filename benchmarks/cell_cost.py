"""What every memory costs beside nn.GRU, in training and in acting, with numba and without.

    python benchmarks/cell_cost.py

One layer of width 128, forward and backward over [128, 32], episodes of 1 to 100 steps; and one step for 32
environments. One thread; CPU times, as other programs may run; each case takes its turn in every round. `of nn.GRU` is
the median of the ratios of a round; nn.GRU itself runs without resets. `torch` is the same layer with
RLMIN_KERNEL=portable, and `faster` how many times faster the layer is than that. Writes
benchmarks/results/cell-cost.csv.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from rlmin.bench.cell import forward_backward
from rlmin.bench.peers import Plain
from rlmin.encoders import MIXERS
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

T, B, D = 128, 32, 128
CASES: dict[str, dict[str, Any]] = {
    "min_gru": {},
    "gated_linear, gla": {"form": "gla"},
    "gated_linear, retnet": {"form": "retnet"},
    "gated_linear, hgrn2": {"form": "hgrn2"},
    "gated_linear, mamba2": {"form": "mamba2"},
    "gated_linear, mlstm": {"form": "mlstm"},
    "delta_net": {},
    "delta_net, decay key": {"decay": "key"},
    "delta_net, products 2": {"products": 2},
    "rwkv6": {},
    "rwkv7": {},
    "mamba": {},
    "srwm": {},
}
Case = Callable[[], object]


def acting(cell: Any) -> Case:
    """One step for B environments, the memory carried."""
    x, start, state = torch.randn(B, D), torch.zeros(B, dtype=torch.bool), cell.initial_state(B)

    @torch.no_grad()
    def step() -> None:
        nonlocal state
        _, state = cell.step(x, state, start)

    return step


def without_numba(case: Case) -> Case:
    def run() -> None:
        os.environ["RLMIN_KERNEL"] = "portable"
        try:
            case()
        finally:
            del os.environ["RLMIN_KERNEL"]

    return run


def measure(cases: dict[str, Case], rounds: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds a call, by case and round."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(rounds + 2):
        for name in list(cases)[:: 1 if i % 2 else -1]:
            began = time.thread_time()
            for _ in range(calls):
                cases[name]()
            if i >= 2:
                found[name].append(1e3 * (time.thread_time() - began) / calls)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results" / "cell-cost.csv", help="a file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.pop("RLMIN_KERNEL", None)
    training: dict[str, Case] = {"nn.GRU": forward_backward(Plain(nn.GRU, D, D), (T, B, D), False, "cpu")}
    steps: dict[str, Case] = {}
    for name, given in CASES.items():
        cell = MIXERS[name.split(",")[0]](D, D, **given)
        training[name], steps[name] = forward_backward(cell, (T, B, D), True, "cpu"), acting(cell)
        training[f"{name}, torch"], steps[f"{name}, torch"] = map(without_numba, (training[name], steps[name]))
    took, acted = measure(training, options.rounds, 1), measure(steps, options.rounds, 20)
    rows = []
    for name in ["nn.GRU", *CASES]:
        row: dict[str, Any] = {"cell": name, "ms": round(median(took[name]), 1)}
        row["of nn.GRU"] = round(median(a / b for a, b in zip(took[name], took["nn.GRU"], strict=True)), 2)
        row |= dict.fromkeys(("torch", "faster", "step us", "torch step us"), "")
        if name in CASES:
            plain, plain_step = took[f"{name}, torch"], acted[f"{name}, torch"]
            row |= {"torch": round(median(plain), 1)}
            row |= {"faster": round(median(a / b for a, b in zip(plain, took[name], strict=True)), 2)}
            row |= {"step us": round(1e3 * median(acted[name])), "torch step us": round(1e3 * median(plain_step))}
        rows.append(row)
        print(row, flush=True)
    write_atomic(options.to, as_csv(rows))


if __name__ == "__main__":
    main()
