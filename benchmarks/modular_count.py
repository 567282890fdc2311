"""Counting modulo 3, learned on 16 tokens, then on 64, and asked for up to 1024: what a product of reflections is for.

    python benchmarks/modular_count.py

At a token of 1 the memory has to turn by a third of a circle. A diagonal memory with real decays cannot, nor can a
single reflection; a product of two reflections is a rotation (`delta_net` with products=2 and negative=True), and a
block of RegularLRNN may be one. Supervised, an answer at every step: one layer of width 32 without a convolution, 300
batches of 64 streams of 16 tokens, then 300 of 64 tokens, Adam with a falling learning rate. `reflecting` begins with
shares near 2, which reflect, and not at 1, which erase. Writes benchmarks/results/modular-count.csv, a row for each
cell, seed and length: `right` is the share of streams whose every answer is right, `answers` that of right answers;
0.33 is chance.
"""

from typing import Any

from arguments import read_arguments
from counting import Net, measure
from torch import nn

from rlmin.encoders import DeltaNet
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

DELTA: dict[str, Any] = {"mixer": "delta_net", "decay": "none", "heads": 2}
CELLS: dict[str, dict[str, Any]] = {
    "two reflections": DELTA | {"products": 2, "negative": True},
    "two reflections, reflecting": DELTA | {"products": 2, "negative": True},
    "one reflection": DELTA | {"negative": True},
    "two writes, positive": DELTA | {"products": 2},
    "regular_lrnn": {"mixer": "regular_lrnn"},
    "min_gru signed, hard gate": {"mixer": "min_gru", "signed": True, "hard_gate": True},
    "gru": {"mixer": "gru"},
}
MODULUS, PLAN, LENGTHS, STREAMS = 3, ((16, 300), (64, 300)), (16, 64, 256, 1024), 64
REFLECTING = 4.0  # bias of the shares: 2 sigmoid(4) = 1.96


def make(cell: str) -> Net:
    """The net of a cell."""
    net = Net(MODULUS, CELLS[cell])
    for module in net.stack.modules():
        if isinstance(module, DeltaNet) and cell.endswith("reflecting"):
            nn.init.constant_(module.share.bias, REFLECTING)
    return net


def main() -> None:
    given = read_arguments(__doc__, seeds=3)
    rows = measure(CELLS, make, seeds=given.seeds, plan=PLAN, lengths=LENGTHS, streams=STREAMS)
    write_atomic(given.results / "modular-count.csv", as_csv(rows))


if __name__ == "__main__":
    main()
