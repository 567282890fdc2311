"""Real-time recurrent learning beside backpropagation through time: gradient, time and memory of one layer of minGRU.

    python benchmarks/real_time.py

Both give the gradient of the same sum of losses over T steps, with resets, in float32 on one thread; CPU time, medians
of alternating runs. `difference` is relative to the norm. `kept` counts the numbers that have to be kept over time: the
traces B * 2H * (H + 1), whatever T is, against the memories T * B * H. Writes benchmarks/results/real-time.csv; `ratio`
is real-time learning over backpropagation.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from arguments import read_arguments
from torch import Tensor

from rlmin.encoders import MinGRU
from rlmin.files.atomic import write_atomic
from rlmin.learning.real_time import add_gradient
from rlmin.suite.report import as_csv

SHAPES = [(128, 8, 32), (128, 8, 128), (1024, 8, 32), (1024, 8, 128)]


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def measure(T: int, B: int, H: int, repeats: int) -> dict[str, Any]:
    """A row of the table."""
    torch.manual_seed(0)
    layer, x, start, state = MinGRU(H, H), torch.randn(T, B, H), torch.rand(T, B) < 0.02, torch.zeros(B, H)

    def through_time() -> Tensor:
        layer.zero_grad()
        y, _ = layer(x, state, start)
        y.square().mean((1, 2)).sum().backward()
        return gradient()

    def in_real_time() -> Tensor:
        layer.zero_grad()
        add_gradient(layer, x, state, start, lambda _, y: y.square().mean())
        return gradient()

    def gradient() -> Tensor:
        return torch.cat([weight.grad.flatten() for weight in layer.parameters() if weight.grad is not None])

    wanted = through_time()
    difference = float((in_real_time() - wanted).norm() / wanted.norm())
    pairs = [(seconds(through_time), seconds(in_real_time)) for _ in range(repeats)]
    ratio = median(slow / fast for fast, slow in pairs)
    kept = {"kept by backpropagation": T * B * H, "kept in real time": B * 2 * H * (H + 1)}
    return {"T": T, "B": B, "H": H, "difference": f"{difference:.1e}", "ratio": round(ratio, 1)} | kept


def main() -> None:
    given = read_arguments(__doc__, repeats=5)
    rows: list[dict[str, Any]] = []
    for T, B, H in SHAPES:
        rows.append(measure(T, B, H, given.repeats))
        print(rows[-1], flush=True)
    write_atomic(given.results / "real-time.csv", as_csv(rows))


if __name__ == "__main__":
    main()
