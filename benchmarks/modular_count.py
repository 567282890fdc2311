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

import torch
from arguments import read_arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from rlmin.encoders import DeltaNet, Stack
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
MODULUS, PLAN, LENGTHS = 3, ((16, 300), (64, 300)), (16, 64, 256, 1024)
WIDTH, ROWS, RATE, STREAMS = 32, 64, 3e-3, 64
REFLECTING = 4.0  # bias of the shares: 2 sigmoid(4) = 1.96


class Net(nn.Module):
    """Tokens to logits of their number so far, modulo 3."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.stack = Stack(2, WIDTH, layers=1, conv=0, **CELLS[cell])
        self.head = nn.Linear(WIDTH, MODULUS)
        for module in self.stack.modules():
            if isinstance(module, DeltaNet) and cell.endswith("reflecting"):
                nn.init.constant_(module.share.bias, REFLECTING)

    def forward(self, tokens: Tensor) -> Tensor:
        start = torch.zeros(tokens.shape, dtype=torch.bool)
        y, _ = self.stack(one_hot(tokens, 2).float(), self.stack.initial_state(tokens.shape[1]), start)
        logits: Tensor = self.head(y)
        return logits


def train(cell: str, seed: int) -> Net:
    """A net after all batches."""
    torch.manual_seed(seed)
    net, batches = Net(cell), sum(count for _, count in PLAN)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, 2 * (1 - done / batches)))
    for length in (length for length, count in PLAN for _ in range(count)):
        tokens = torch.randint(0, 2, (length, ROWS))
        loss = cross_entropy(net(tokens).flatten(0, 1), (tokens.cumsum(0) % MODULUS).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net


@torch.no_grad()
def ask(net: Net, length: int) -> tuple[float, float]:
    """Share of streams that are right throughout, and of right answers."""
    tokens = torch.randint(0, 2, (length, STREAMS), generator=torch.Generator().manual_seed(length))
    right = net(tokens).argmax(-1) == tokens.cumsum(0) % MODULUS
    return float(right.all(0).float().mean()), float(right.float().mean())


def main() -> None:
    given = read_arguments(__doc__, seeds=3)
    rows: list[dict[str, Any]] = []
    for cell in CELLS:
        for seed in range(given.seeds):
            net = train(cell, seed)
            for length in LENGTHS:
                right, answers = ask(net, length)
                rows.append(
                    {"cell": cell, "seed": seed, "length": length, "right": right, "answers": round(answers, 4)}
                )
            print(cell, seed, *(f"{row['length']}: {row['answers']:.3f}" for row in rows[-len(LENGTHS) :]), flush=True)
    write_atomic(given.results / "modular-count.csv", as_csv(rows))


if __name__ == "__main__":
    main()
