"""Streams of bits and the number of ones so far, modulo a number: nets that learn it, and how long they are right."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from rlmin.encoders import Stack

WIDTH, ROWS, RATE = 32, 64, 3e-3


class Net(nn.Module):
    """Bits [T, B] to logits [T, B, modulus] of their number so far; one layer without convolution."""

    def __init__(self, modulus: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.modulus = modulus
        self.stack = Stack(2, WIDTH, layers=1, conv=0, **options)
        self.head = nn.Linear(WIDTH, modulus)

    def forward(self, bits: Tensor) -> Tensor:
        start = torch.zeros(bits.shape, dtype=torch.bool)
        y, _ = self.stack(one_hot(bits, 2).float(), self.stack.initial_state(bits.shape[1]), start)
        logits: Tensor = self.head(y)
        return logits


def train(net: Net, plan: tuple[tuple[int, int], ...]) -> None:
    """Train on batches of drawn streams; `plan` has pairs of a length and a number of batches."""
    batches = sum(count for _, count in plan)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, 2 * (1 - done / batches)))
    for length in (length for length, count in plan for _ in range(count)):
        bits = torch.randint(0, 2, (length, ROWS))
        loss = cross_entropy(net(bits).flatten(0, 1), (bits.cumsum(0) % net.modulus).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def ask(net: Net, length: int, streams: int) -> tuple[float, float]:
    """Share of streams that are right throughout, and of right answers."""
    bits = torch.randint(0, 2, (length, streams), generator=torch.Generator().manual_seed(length))
    right = net(bits).argmax(-1) == bits.cumsum(0) % net.modulus
    return float(right.all(0).float().mean()), float(right.float().mean())


def measure(
    cells: Iterable[str],
    make: Callable[[str], Net],
    *,
    seeds: int,
    plan: tuple[tuple[int, int], ...],
    lengths: tuple[int, ...],
    streams: int,
) -> list[dict[str, Any]]:
    """A row for each cell, seed and length."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        for seed in range(seeds):
            torch.manual_seed(seed)
            net = make(cell)
            train(net, plan)
            for length in lengths:
                right, answers = ask(net, length, streams)
                rows.append(
                    {"cell": cell, "seed": seed, "length": length, "right": right, "answers": round(answers, 4)}
                )
            shown = (f"{row['length']}: {row['right']:.2f} {row['answers']:.3f}" for row in rows[-len(lengths) :])
            print(cell, seed, *shown, flush=True)
    return rows
