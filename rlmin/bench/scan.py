"""The scans: every kernel, from RL's shapes to T = 65536, beside a sigmoid and a copy.

A row is one scan, forward or forward and backward, on float32 [T, B, D] with an episode start every 100 steps. Two
contenders take turns with it: `torch.sigmoid` over as many elements (the least an elementwise operation costs with its
output freshly allocated) and a copy that moves as many bytes without allocating (the limit of memory). The bytes are
the fewest that the scan can move: it reads its inputs and writes its output once; backward, which recomputes the gates,
reads inputs, states and gradient and writes a gradient for each input.

Per element of [T, B, D] these are 3 floats forward and 8 in all for the linear scan, 3 and 9 for minGRU, 4 and 12 for
minLSTM. `GB/s` are these bytes over the time; `of a copy` is the share of the copy's speed. Shape [1, 1, 1] is the cost
of a call that has nothing to do. A kernel that cannot run on the device is skipped; for the loops `reference` and
`portable` only two scans are timed, for the former up to T = 1024.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rlmin.bench.options import Options
from rlmin.bench.report import Table, Target, limit, number, plain_log
from rlmin.bench.timing import Case
from rlmin.scan import KERNELS, linear_scan, min_gru_scan, min_lstm_scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Shape = tuple[int, int, int]

SHAPES: list[Shape] = [  # T, B, D
    (1, 1, 1),
    (16, 64, 64),
    (128, 64, 64),
    (128, 64, 256),
    (512, 64, 128),
    (1024, 16, 256),
    (4096, 8, 128),
    (16384, 4, 64),
    (65536, 1, 64),
]
QUICK: list[Shape] = [(1, 1, 1), (7, 5, 3), (16, 4, 8)]
REFERENCE_LONGEST = 1024
LOOPS = {"reference", "portable"}
OF_LOOPS = ("linear", "min_gru tanh")
FORWARD, BOTH = "forward", "forward + backward"
MOST = {FORWARD: 1.3, BOTH: 8.0}
"""Largest cost of minGRU in sigmoids, at the shapes below."""
TARGETS: list[Shape] = [(128, 64, 64), (128, 64, 256), (512, 64, 128)]


class Scan(NamedTuple):
    """A scan under test."""

    inputs: int  # [T, B, D] tensors it reads
    call: Callable[..., tuple[Tensor, Tensor]]
    floats: dict[str, int]  # moved per element of [T, B, D]


SCANS: dict[str, Scan] = {
    "linear": Scan(2, linear_scan, {FORWARD: 3, BOTH: 8}),
    "min_gru": Scan(2, min_gru_scan, {FORWARD: 3, BOTH: 9}),
    "min_gru tanh": Scan(2, lambda *x: min_gru_scan(*x, activation="tanh"), {FORWARD: 3, BOTH: 9}),
    "min_gru g": Scan(2, lambda *x: min_gru_scan(*x, activation="g"), {FORWARD: 3, BOTH: 9}),
    "min_lstm tanh": Scan(3, lambda *x: min_lstm_scan(*x, activation="tanh"), {FORWARD: 4, BOTH: 12}),
}


def run(options: Options) -> Table:
    """Every kernel, shape and scan; see the top of this file."""
    table = Table()
    for kernel in KERNELS:
        with force_kernel(kernel):
            try:
                passes("linear", (1, 1, 1), options.device)[BOTH]()
            except (ValueError, ImportError, RuntimeError) as error:
                table.skip(error, {"kernel": kernel})
                continue
            for shape in QUICK if options.quick else SHAPES:
                if kernel != "reference" or shape[0] <= REFERENCE_LONGEST:
                    _measure(table, kernel, shape, options)
    for shape in TARGETS:
        for row in table.where(kernel=fastest(table), scan="min_gru", shape=name_of(shape)):
            what = f"{row['kernel']} minGRU {row['shape']} {row['pass']}, in sigmoids"
            table.targets.append(Target(what, number(row["sigmoids"]), MOST[str(row["pass"])]))
    return table


def _measure(table: Table, kernel: str, shape: Shape, options: Options) -> None:
    """The rows of one kernel and shape; all scans and passes take turns."""
    elements = shape[0] * shape[1] * shape[2]
    scans = {name: scan for name, scan in SCANS.items() if kernel not in LOOPS or name in OF_LOOPS}
    cases: dict[str, Case] = {"sigmoid": sigmoid(shape, options.device)}
    for floats in sorted({n for scan in scans.values() for n in scan.floats.values()}):
        cases[f"copy {floats}"] = copy(floats * elements // 2, options.device)
    for name in scans:
        cases |= {f"{name} {kind}": case for kind, case in passes(name, shape, options.device).items()}
    timing = options.measure(f"{kernel} {name_of(shape)}", cases, rounds=21, seconds=3, block=0.0002)
    for name, scan in scans.items():
        for kind, floats in scan.floats.items():
            case, speed = f"{name} {kind}", 4e-9 * floats * elements
            table.add(
                {
                    "kernel": kernel,
                    "scan": name,
                    "shape": name_of(shape),
                    "pass": kind,
                    "ms": 1e3 * timing.median(case),
                    "sigmoids": timing.ratio(case, "sigmoid"),
                    "GB/s": speed / timing.median(case),
                    "of a copy": 1 / timing.ratio(case, f"copy {floats}"),
                    "rounds": timing.rounds,
                }
            )


def passes(name: str, shape: Shape, device: str) -> dict[str, Case]:
    """The forward pass, and forward and backward together, of one scan."""
    T, B, D = shape
    scan, generator = SCANS[name], torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device)

    inputs = [draw(T, B, D).requires_grad_() for _ in range(scan.inputs)]
    if name == "linear":
        inputs[0] = torch.rand(shape, generator=generator).to(device).requires_grad_()
    state, upstream = draw(B, D).requires_grad_(), draw(T, B, D)
    start = (torch.rand(T, B, generator=generator) < 0.01).to(device)

    @torch.no_grad()
    def forward() -> None:
        scan.call(*inputs, state, start)

    def both() -> None:
        torch.autograd.grad(scan.call(*inputs, state, start)[0], [*inputs, state], upstream)

    return {FORWARD: forward, BOTH: both}


def sigmoid(shape: Shape, device: str) -> Case:
    """torch.sigmoid over [T, B, D]."""
    x = torch.randn(shape).to(device)
    return lambda: torch.sigmoid(x)


def copy(elements: int, device: str) -> Case:
    """A copy that reads and writes this many floats each."""
    source, target = torch.ones(elements, device=device), torch.zeros(elements, device=device)
    return lambda: target.copy_(source)


@contextmanager
def force_kernel(kernel: str) -> Iterator[None]:
    """Scans run on this kernel."""
    before = os.environ.get("RLMIN_KERNEL")
    os.environ["RLMIN_KERNEL"] = kernel
    try:
        yield
    finally:
        del os.environ["RLMIN_KERNEL"]
        if before is not None:
            os.environ["RLMIN_KERNEL"] = before


def fastest(table: Table) -> str:
    """The kernel with the highest peak speed: the one that a user gets."""
    rows = table.where(scan="min_gru tanh")
    return str(max(rows, key=lambda row: number(row["GB/s"]))["kernel"]) if rows else ""


def name_of(shape: Shape) -> str:
    """128x64x256."""
    return "x".join(map(str, shape))


PANELS = {
    f"{FORWARD}, in sigmoids": (FORWARD, "sigmoids", MOST[FORWARD]),
    f"{BOTH}, in sigmoids": (BOTH, "sigmoids", MOST[BOTH]),
    f"{BOTH}, speed, a copy = 1": (BOTH, "of a copy", 1.0),
}


def draw(table: Table, figure: "Figure") -> None:
    """Cost of a scan in sigmoids, and its share of a copy's speed, over shapes; one scan for the slower kernels."""
    shapes = [shape for shape in table.each("shape") if shape != "1x1x1"]
    kernels = sorted(table.each("kernel"), key=lambda kernel: kernel != fastest(table))  # it first
    for axes, (title, (kind, column, dashed)) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for style, kernel in zip(["-", ":", "-.", "--"], kernels, strict=False):
            for colour, name in enumerate(SCANS):
                if kernel == kernels[0] or name == "min_gru tanh":
                    rows = {row["shape"]: row for row in table.where(kernel=kernel, scan=name, **{"pass": kind})}
                    points = [(i, number(rows[shape][column])) for i, shape in enumerate(shapes) if shape in rows]
                    line = {"color": f"C{colour}", "linestyle": style, "marker": "."}
                    axes.plot([x for x, _ in points], [y for _, y in points], label=f"{kernel}: {name}", **line)
        axes.set_xticks(range(len(shapes)), shapes, rotation=60, ha="right", fontsize=7)
        plain_log(axes, y=True)
        axes.set_title(title, fontsize=9)
        limit(axes, dashed, "a copy" if dashed == 1 else f"target {dashed:g}")
    figure.axes[0].legend(fontsize=7)
