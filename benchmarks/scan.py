"""What one scan costs, in units of one `torch.sigmoid` over as many elements.

    python benchmarks/scan.py [--threads 1] [--repeats 30]

Every row is measured in one run, the sigmoid paired with the scan in each repetition, and medians are printed; so the
ratios hold on a noisy machine where the milliseconds do not. `backward` is forward and backward together, without the
optimiser. The last lines are the cost of a call on almost nothing.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from rlmin.scan import linear_scan, min_gru_scan, min_lstm_scan, warmup

SHAPES = [(128, 64, 256), (256, 16, 128), (64, 256, 64)]
KERNELS = ["cpu", "portable"]
SCANS: dict[str, tuple[int, Callable[..., tuple[Tensor, Tensor]]]] = {
    "linear": (2, linear_scan),
    "min_gru": (2, min_gru_scan),
    "min_gru tanh": (2, lambda *x: min_gru_scan(*x, activation="tanh")),
    "min_gru g": (2, lambda *x: min_gru_scan(*x, activation="g")),
    "min_lstm tanh": (3, lambda *x: min_lstm_scan(*x, activation="tanh")),
}


def milliseconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return (time.perf_counter() - begin) * 1e3


def medians(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    for function in functions:
        function()
    rounds = [[milliseconds(function) for function in functions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def measure(name: str, shape: tuple[int, int, int], repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of the forward pass, forward and backward, and one sigmoid."""
    T, B, D = shape
    count, scan = SCANS[name]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(count)]
    if name == "linear":
        inputs[0] = torch.rand(shape, generator=generator).requires_grad_()
    state = torch.zeros(B, D, requires_grad=True)
    start = torch.rand(T, B, generator=generator) < 0.01
    upstream = torch.randn(shape, generator=generator)
    leaves = [*inputs, state]

    @torch.no_grad()
    def forward() -> None:
        scan(*inputs, state, start)

    def both() -> None:
        torch.autograd.grad(scan(*inputs, state, start)[0], leaves, upstream)

    @torch.no_grad()
    def sigmoid() -> None:
        torch.sigmoid(inputs[0])

    once, twice, unit = medians([forward, both, sigmoid], repeats)
    return once, twice, unit


def overhead(scan: Callable[..., tuple[Tensor, Tensor]], count: int, calls: int = 2000) -> float:
    """Microseconds of a call without gradient on [1, 1, 1]."""
    inputs = [torch.zeros(1, 1, 1) for _ in range(count)]
    state = torch.zeros(1, 1)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(calls):
            scan(*inputs, state)
        times.append((time.perf_counter() - begin) / calls * 1e6)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warmup()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), medians of {arguments.repeats}, float32")
    header = f"{'kernel':9} {'scan':14} {'[T, B, D]':16} {'forward':>9} {'backward':>9} {'sigmoid':>9}  ratios"
    print(header + "\n" + "-" * len(header))
    for kernel in KERNELS:
        os.environ["RLMIN_KERNEL"] = kernel
        for shape in SHAPES:
            for name in SCANS:
                once, twice, unit = measure(name, shape, arguments.repeats)
                size = "x".join(map(str, shape))
                line = f"{kernel:9} {name:14} {size:16} {once:6.2f} ms {twice:6.2f} ms {unit:6.2f} ms"
                print(f"{line}  {once / unit:.2f} {twice / unit:.2f}")
        for name, (count, scan) in SCANS.items():
            print(f"{kernel:9} {name:14} {'1x1x1':16} {overhead(scan, count):6.1f} us a call")


if __name__ == "__main__":
    main()
