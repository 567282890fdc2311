"""Temporal consistency and rational activations: are memory tasks learned sooner?

    python benchmarks/training_terms.py

`consistency` adds weight * mean((h[t] - h[t-1])^2) over the memory h of every layer to the loss: our reading of
Haputhanthri et al. (arXiv:2502.07256), who want memories that stay where they are. `strong` begins with recurrent
weights four times as large, the case in which they expect most of it. `rational` puts a learned P(x) / (1 +
|Q(x)|) of degrees 5 and 4, which begins as SiLU, into the place of every SiLU (Delfosse et al., arXiv:2102.09407).
Supervised, two blocks of GRU of width 32, Adam. `flip-flop`: three channels with rare pulses of 1 and -1, what was the
last on each? `parity`: of the last 4 bits, where the memory has to change at every step. Writes
benchmarks/results/training-terms.csv: `updates` until 98 % of the answers are right; empty: not within the budget.
"""

from collections.abc import Callable
from typing import Any

import torch
from arguments import read_arguments
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, pad, silu

from rlmin.encoders import Stack
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

WIDTH, ROWS, T, RATE, ENOUGH, EVERY = 32, 64, 32, 1e-3, 0.98, 5
N, PULSES = 4, 0.1
CONTENDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "consistency 0.01": {"consistency": 0.01},
    "consistency 0.1": {"consistency": 0.1},
    "consistency 1": {"consistency": 1.0},
    "strong": {"strength": 4.0},
    "strong, consistency 0.1": {"strength": 4.0, "consistency": 0.1},
    "strong, consistency 1": {"strength": 4.0, "consistency": 1.0},
    "rational": {"rational": True},
}


class Rational(nn.Module):
    """y = P(x) / (1 + |Q(x)|), P of degree 5, Q of degree 4 without a constant: one function for all units."""

    def __init__(self, like: Callable[[Tensor], Tensor] = silu) -> None:
        super().__init__()
        x = torch.linspace(-4, 4, 401, dtype=torch.float64)
        above = torch.stack([x**i for i in range(6)], 1)
        below = torch.stack([x**2, x**4], 1)  # even, so that |Q| = Q where both weights are positive
        y = like(x)
        joint = torch.cat([above, -y[:, None] * below], 1)
        found = torch.linalg.lstsq(joint, y[:, None]).solution.squeeze(1)
        self.above = nn.Parameter(found[:6].float())
        self.below = nn.Parameter(torch.stack([found.new_zeros(()), found[6], found.new_zeros(()), found[7]]).float())

    def forward(self, x: Tensor) -> Tensor:
        P = self.above[5]
        for weight in self.above[:5].flip(0):
            P = P * x + weight
        Q = self.below[3]
        for weight in self.below[:3].flip(0):
            Q = Q * x + weight
        return P / (1 + (Q * x).abs())


def draw(task: str, rows: int) -> tuple[Tensor, Tensor]:
    """x [T, B, D], and answers [T, B, questions], each a choice of two or -1 for none."""
    if task == "parity":
        bits = torch.randint(0, 2, (T, rows))
        total = pad(bits.cumsum(0), (0, 0, N, 0))
        odd = (total[N:] - total[:-N]) % 2
        odd[: N - 1] = -1
        return one_hot(bits, 2).float(), odd.unsqueeze(-1)
    pulse = (torch.rand(T, rows, 3) < PULSES) * (2 * torch.randint(0, 2, (T, rows, 3)) - 1)
    last = torch.zeros(rows, 3, dtype=torch.long)
    found = []
    for now in pulse:
        last = torch.where(now != 0, now, last)
        found.append(last)
    states = torch.stack(found)
    return pulse.float(), torch.where(states == 0, -1, (states + 1) // 2)


def learn(
    task: str, seed: int, updates: int, *, consistency: float = 0.0, strength: float = 1.0, rational: bool = False
) -> int | None:
    """Updates until enough answers are right; None: too many."""
    torch.manual_seed(seed)
    inputs, questions = (2, 1) if task == "parity" else (3, 3)
    stack, head = Stack(inputs, WIDTH, mixer="gru", conv=0), nn.Linear(WIDTH, 2 * questions)
    memories = list[Tensor]()
    for block in stack.blocks:
        mixer: Any = block.mixer
        mixer.recurrence.weight.data *= strength
        mixer.register_forward_hook(lambda _module, _given, out: memories.append(out[0]))
        if rational:
            mlp: Any = block.mlp
            mlp[1] = Rational()
    weights = [*stack.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, RATE)
    for update in range(1, updates + 1):
        memories.clear()
        x, right = draw(task, ROWS)
        y, _ = stack(x, stack.initial_state(ROWS), torch.zeros(T, ROWS, dtype=torch.bool))
        logits = head(y).unflatten(-1, (questions, 2))
        loss = cross_entropy(logits.flatten(0, 2), right.flatten(), ignore_index=-1)
        if consistency:
            loss = loss + consistency * torch.stack([h.diff(dim=0).square().mean() for h in memories]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if update % EVERY == 0 and float((logits.argmax(-1) == right)[right >= 0].float().mean()) >= ENOUGH:
            return update
    return None


def main() -> None:
    given = read_arguments(__doc__, seeds=3, updates=500)
    rows: list[dict[str, Any]] = []
    for task in ("flip-flop", "parity"):
        for name, options in CONTENDERS.items():
            found = [learn(task, seed, given.updates, **options) for seed in range(given.seeds)]
            rows += [{"task": task, "changed": name, "seed": seed, "updates": n or ""} for seed, n in enumerate(found)]
            print(task, name, *found, flush=True)
    write_atomic(given.results / "training-terms.csv", as_csv(rows))


if __name__ == "__main__":
    main()
