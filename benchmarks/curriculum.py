"""Curricula over N: parity of the last N bits, and delayed match with the bit N - 1 steps ago.

    python benchmarks/curriculum.py

The curricula of Khajehabdollahi et al. (arXiv:2309.12927), supervised, an answer at every step. `one head` trains N = 2
and N + 1 with the same head as soon as N is 98 % right; `many heads` gives every N a head of its own and goes on
training all of them; `none` trains the last N from the start. Two blocks of width 32, batches of 64 streams, Adam.
Writes benchmarks/results/curriculum.csv: `solved` is the largest N that was 98 % right, `old` the share of right
answers, at the end, to all smaller N, each by the head that solved it (`one head` keeps a copy). 0.5 is chance.
"""

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, pad

from rlmin.encoders import Stack
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

WIDTH, ROWS, RATE, ENOUGH = 32, 64, 3e-3, 0.98
EVERY = 10  # updates between two looks at the accuracy
CURRICULA = ("one head", "many heads", "none")


def answer(task: str, bits: Tensor, N: int) -> Tensor:
    """[T - N + 1, B] the right answers from step N - 1 on."""
    if task == "match":
        return (bits[N - 1 :] == bits[: len(bits) - N + 1]).long()
    total = pad(bits.cumsum(0), (0, 0, 1, 0))
    return (total[N:] - total[:-N]) % 2


class Net(nn.Module):
    """A memory with a head for each N."""

    def __init__(self, mixer: str) -> None:
        super().__init__()
        self.stack = Stack(2, WIDTH, mixer=mixer)
        self.heads = nn.ModuleDict()

    def open(self, N: int, *, copy: bool) -> None:
        """Add a head for N: new, or a copy of that for N - 1."""
        old = self.heads[str(N - 1)] if copy and str(N - 1) in self.heads else None
        self.heads[str(N)] = nn.Linear(WIDTH, 2) if old is None else deepcopy(old)

    def forward(self, bits: Tensor) -> Tensor:
        """[T, B, H] features."""
        x, start = one_hot(bits, 2).float(), torch.zeros(bits.shape, dtype=torch.bool)
        y, _ = self.stack(x, self.stack.initial_state(bits.shape[1]), start)
        return y

    def ask(self, y: Tensor, N: int) -> Tensor:
        """[T - N + 1, B, 2] logits of the answers for N."""
        logits: Tensor = self.heads[str(N)](y[N - 1 :])
        return logits


@torch.no_grad()
def accuracy(net: Net, task: str, N: int, rows: int = 256) -> float:
    """Share of right answers on new streams."""
    bits = torch.randint(0, 2, (3 * N, rows))
    return float((net.ask(net(bits), N).argmax(-1) == answer(task, bits, N)).float().mean())


def train(task: str, mixer: str, curriculum: str, seed: int, updates: int, last: int) -> dict[str, Any]:
    """A row of the table."""
    torch.manual_seed(seed)
    net, N, solved = Net(mixer), last if curriculum == "none" else 2, 0
    net.open(N, copy=False)
    optimizer, used = torch.optim.Adam(net.parameters(), RATE), updates
    for update in range(updates):
        bits = torch.randint(0, 2, (3 * N, ROWS))
        y = net(bits)
        asked = range(2, N + 1) if curriculum == "many heads" else [N]
        losses = [cross_entropy(net.ask(y, n).flatten(0, 1), answer(task, bits, n).flatten()) for n in asked]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if update % EVERY == EVERY - 1 and accuracy(net, task, N) >= ENOUGH:
            solved, used = N, update + 1
            if last == N:
                break
            N += 1
            net.open(N, copy=curriculum == "one head")
            optimizer.add_param_group({"params": list(net.heads[str(N)].parameters())})
    smaller = [accuracy(net, task, n) for n in range(2, solved)] if curriculum != "none" else []
    old = round(sum(smaller) / len(smaller), 3) if smaller else ""
    found = {"solved": solved or "", "updates": used if solved else updates, "old": old}
    return {"task": task, "encoder": mixer, "curriculum": curriculum, "seed": seed} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--last", type=int, default=8, help="the N to end with")
    parser.add_argument("--encoders", nargs="+", default=["gru", "min_gru"])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for task in ("parity", "match"):
        for mixer in given.encoders:
            for curriculum in CURRICULA:
                for seed in range(given.seeds):
                    rows.append(train(task, mixer, curriculum, seed, given.updates, given.last))
                    print(rows[-1], flush=True)
    write_atomic(given.results / "curriculum.csv", as_csv(rows))


if __name__ == "__main__":
    main()
