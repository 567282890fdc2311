"""Cells: one layer of each memory, forward and backward over a whole rollout, beside torch's and other libraries'.

Input and memory have the same width D; gradients reach the input and every weight. `no` resets: nothing starts within
the rollout. `yes`: episodes last 1 to 100 steps, uniformly. rlmin's cells handle resets themselves; for torch's kernels
a rollout must be cut and padded (as sb3-contrib does) or run step by step (as CleanRL does). Peers:
rlmin/bench/peers.py; on a CPU the slowest are timed only up to a length that takes them about a second.

All cells of one shape take turns. `times as fast` compares with the row named in `against`: torch's kernel of the same
kind without resets, or split and padded with them. `products` is the time of a cell over that of its projection's
matrix products alone, which no implementation can go below.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rlmin.bench.options import Options
from rlmin.bench.peers import (
    Attention,
    LogSpaceMinGRU,
    Missing,
    OperatorGRU,
    Plain,
    SplitAndPad,
    Stepped,
    TorchRLGRU,
)
from rlmin.bench.products import Products
from rlmin.bench.report import Table, Target, number, plain_log
from rlmin.bench.timing import Case, Timing
from rlmin.encoders import MIXERS, Encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Shape = tuple[int, int, int]

SHAPES: list[Shape] = [(16, 64, 128), (64, 64, 128), (128, 64, 128), (512, 64, 128), (2048, 16, 128), (4096, 8, 256)]
QUICK: list[Shape] = [(6, 3, 4), (9, 3, 4)]
FASTER: dict[Shape, float] = {(512, 64, 128): 5.0, (4096, 8, 256): 6.0}
"""Speed that minGRU should reach in units of nn.GRU, at [T, B, D]."""
MOST_PRODUCTS = 1.35
LONGEST_EPISODE = 100


class Contender(NamedTuple):
    """A row of the table."""

    make: Callable[[int, int], Encoder]
    resets: bool
    against: str
    longest: float = math.inf  # largest T on a CPU


def _torch(encoder: type[Plain], kind: type[nn.GRU] | type[nn.LSTM]) -> Callable[[int, int], Encoder]:
    return lambda D, H: encoder(kind, D, H)


GRU, LSTM = "nn.GRU", "nn.LSTM"
PADDED_GRU, PADDED_LSTM = "nn.GRU, split and pad", "nn.LSTM, split and pad"
OWN = [name for name in MIXERS if name != "mlp"]
LSTMS = {"min_lstm", "lstm"}
LONGEST = {"slstm": 512, "coupled_lmu": 512, "regular_lrnn": 512}
"""Largest T of a cell on a CPU: longer ones go step by step and take too long."""


def _make_contender(name: str, resets: bool) -> Contender:
    """A cell of rlmin beside torch's kernel of its kind."""
    gru, lstm = (PADDED_GRU, PADDED_LSTM) if resets else (GRU, LSTM)
    return Contender(MIXERS[name], resets, lstm if name in LSTMS else gru, LONGEST.get(name, math.inf))


CONTENDERS: dict[str, Contender] = {
    **{name: _make_contender(name, False) for name in OWN},
    GRU: Contender(_torch(Plain, nn.GRU), False, GRU),
    LSTM: Contender(_torch(Plain, nn.LSTM), False, LSTM),
    "GRU of torch operators": Contender(OperatorGRU, False, GRU),
    "minGRU-pytorch": Contender(LogSpaceMinGRU, False, GRU),
    "attention over the whole": Contender(Attention, False, GRU, 2048),
    **{f"{name} with resets": _make_contender(name, True) for name in OWN},
    PADDED_GRU: Contender(_torch(SplitAndPad, nn.GRU), True, PADDED_GRU),
    PADDED_LSTM: Contender(_torch(SplitAndPad, nn.LSTM), True, PADDED_LSTM),
    "nn.LSTM, step by step (CleanRL)": Contender(_torch(Stepped, nn.LSTM), True, PADDED_LSTM, 512),
    "TorchRL GRUModule": Contender(TorchRLGRU, True, PADDED_GRU, 128),
    "attention over the whole with resets": Contender(Attention, True, PADDED_GRU, 512),
}
PRODUCTS = {"min_gru", "min_lstm"}
"""Cells whose only matrix product is their projection."""


def run(options: Options) -> Table:
    """Every cell at every shape; see the top of this file."""
    table = Table()
    for shape in QUICK if options.quick else SHAPES:
        _measure(table, shape, options)
    for shape, factor in FASTER.items():
        T, B, D = shape
        for row in table.where(cell="min_gru", T=T, B=B, D=D):
            where = f"min_gru at T={T}, B={B}, D={D}"
            found = number(row["times as fast"])
            table.targets.append(Target(f"{where}, times as fast as nn.GRU", found, factor, at_most=False))
            table.targets.append(Target(f"{where}, over its products", number(row["products"]), MOST_PRODUCTS))
    return table


def _measure(table: Table, shape: Shape, options: Options) -> None:
    T, B, D = shape
    cases: dict[str, Case] = {}
    for name, contender in CONTENDERS.items():
        if options.device == "cpu" and contender.longest < T:
            continue
        try:
            cases[name] = case = forward_backward(contender.make(D, D), shape, contender.resets, options.device)
        except Missing as reason:
            table.skip(reason, {"T": T, "B": B, "D": D, "cell": name})
            continue
        if name in PRODUCTS:
            cases[f"products of {name}"] = Products(case)
    timing = options.measure(f"T={T} B={B} D={D}", cases, rounds=9, seconds=8)
    for name, contender in CONTENDERS.items():
        if name in cases:
            table.add({"T": T, "B": B, "D": D, **_row(timing, name, contender)})


def _row(timing: Timing, name: str, contender: Contender) -> dict[str, str | int | float | None]:
    return {
        "cell": name,
        "resets": "yes" if contender.resets else "no",
        "ms": 1e3 * timing.median(name),
        "times as fast": 1 / timing.ratio(name, contender.against),
        "against": contender.against,
        "products": timing.ratio(name, f"products of {name}") if name in PRODUCTS else None,
        "rounds": timing.rounds,
    }


def forward_backward(encoder: Encoder, shape: Shape, resets: bool, device: str) -> Case:
    """Forward over [T, B, D] from an empty memory, and backward to the input and every weight."""
    T, B, D = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device)

    encoder.to(device)
    x, upstream = draw(T, B, D).requires_grad_(), draw(T, B, encoder.output_size)
    start = (starts(T, B, generator) if resets else torch.zeros(T, B, dtype=torch.bool)).to(device)
    state, leaves = encoder.initial_state(B), [x, *encoder.parameters()]

    def both() -> None:
        y, _ = encoder(x, state, start)
        torch.autograd.grad(y, leaves, upstream)

    return both


def starts(T: int, B: int, generator: torch.Generator) -> Tensor:
    """[T, B] bool, one episode after the other in every row, of 1 to LONGEST_EPISODE steps each."""
    lengths = torch.randint(1, LONGEST_EPISODE + 1, (T, B), generator=generator)
    opens = lengths.cumsum(0)  # [T, B], T episodes a row are enough to fill it
    return torch.zeros(T + 1, B, dtype=torch.bool).scatter_(0, opens.clamp(max=T), True)[:T]


def draw(table: Table, figure: "Figure") -> None:
    """Microseconds a token over the shapes, without resets and with; a line a cell."""
    shapes = [f"T={row['T']}\nB={row['B']}\nD={row['D']}" for row in table.where(cell=GRU)]
    for axes, resets in zip(figure.subplots(1, 2, sharey=True), ["no", "yes"], strict=True):
        for name in table.each("cell", resets=resets):
            own = name.removesuffix(" with resets") in OWN
            rows = table.where(cell=name, resets=resets)
            tokens = [1e3 * number(row["ms"]) / (number(row["T"]) * number(row["B"])) for row in rows]
            style = "-" if own else ":"
            colour = f"C{list(CONTENDERS).index(name.removesuffix(' with resets')) % 10}"
            axes.plot(
                range(len(tokens)),
                tokens,
                style,
                marker="o" if own else "x",
                color=colour,
                label=name.removesuffix(" with resets"),
            )
        axes.set_xticks(range(len(shapes)), shapes, fontsize=8)
        plain_log(axes, y=True)
        axes.set_title(f"forward + backward, {'no resets' if resets == 'no' else 'resets'}", fontsize=10)
    figure.axes[0].set_ylabel("us a token")
    lines = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(lines.values()), list(lines), loc="outside right center", fontsize=7)
