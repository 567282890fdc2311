"""Streaming parity, learned on 16 bits and asked for up to 4096: what a sign of the decay is for.

    python benchmarks/signed_parity.py

A unit of minGRU cannot turn over, as its decay lies in (0, 1); with `signed` it can, and with `hard_gate` it turns over
without losing anything, so that a stream of any length is right. Supervised, so that exploration plays no part: one
layer of width 32 without a convolution, 300 batches of 64 streams, Adam with a falling learning rate. Two minutes on
one core. Writes benchmarks/results/signed-parity.csv, a row for each cell, seed and length: `right` is the share of
streams whose every answer is right, `answers` that of right answers; 0.5 is chance.
"""

from typing import Any

import torch
from arguments import read_arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from rlmin.encoders import Stack
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

CELLS: dict[str, dict[str, Any]] = {
    "min_gru": {"mixer": "min_gru"},
    "min_gru signed": {"mixer": "min_gru", "signed": True},
    "min_gru signed, hard gate": {"mixer": "min_gru", "signed": True, "hard_gate": True},
    "min_lstm signed, hard gate": {"mixer": "min_lstm", "signed": True, "hard_gate": True},
    "gru": {"mixer": "gru"},
}
TRAINED, LENGTHS = 16, (16, 64, 256, 1024, 4096)
WIDTH, BATCHES, ROWS, RATE, STREAMS = 32, 300, 64, 3e-3, 32


class Net(nn.Module):
    """Bits to logits of their parity so far."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.stack = Stack(2, WIDTH, layers=1, conv=0, **options)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, bits: Tensor) -> Tensor:
        start = torch.zeros(bits.shape, dtype=torch.bool)
        y, _ = self.stack(one_hot(bits, 2).float(), self.stack.initial_state(bits.shape[1]), start)
        logits: Tensor = self.head(y)
        return logits


def train(options: dict[str, Any], seed: int) -> Net:
    """A net after all batches."""
    torch.manual_seed(seed)
    net = Net(options)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, 2 * (1 - done / BATCHES)))
    for _ in range(BATCHES):
        bits = torch.randint(0, 2, (TRAINED, ROWS))
        loss = cross_entropy(net(bits).flatten(0, 1), (bits.cumsum(0) % 2).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net


@torch.no_grad()
def ask(net: Net, length: int) -> tuple[float, float]:
    """Share of streams that are right throughout, and of right answers."""
    bits = torch.randint(0, 2, (length, STREAMS), generator=torch.Generator().manual_seed(length))
    right = net(bits).argmax(-1) == bits.cumsum(0) % 2
    return float(right.all(0).float().mean()), float(right.float().mean())


def main() -> None:
    given = read_arguments(__doc__, seeds=5)
    rows: list[dict[str, Any]] = []
    for cell, options in CELLS.items():
        for seed in range(given.seeds):
            net = train(options, seed)
            for length in LENGTHS:
                right, answers = ask(net, length)
                rows.append(
                    {"cell": cell, "seed": seed, "length": length, "right": right, "answers": round(answers, 4)}
                )
            print(cell, seed, *(f"{row['length']}: {row['right']:.2f}" for row in rows[-len(LENGTHS) :]), flush=True)
    write_atomic(given.results / "signed-parity.csv", as_csv(rows))


if __name__ == "__main__":
    main()
