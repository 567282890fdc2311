"""Look-up by content: which cells answer with the value that a key was shown with.

    python benchmarks/recall.py            # two minutes on one core

16 pairs (key of 64, value of 16), one pair a step, then the 16 keys in another order: which value was it? Learned with
supervision by two layers without convolution. The memories of the first two have the same number of floats, that of
RG-LRU is a vector, and the layer of attention in the place of its second keeps every step. Chance is 1/16. Writes
benchmarks/results/recall.csv.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from rlmin.encoders import Stack
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv
from rlmin.types import tensors_of

PAIRS, KEYS, VALUES, ROWS = 16, 64, 16, 64
CONTENDERS: list[tuple[str, int, dict[str, Any]]] = [
    ("delta_net", 32, {"heads": 2, "decay": "none"}),
    ("gated_linear", 32, {"heads": 2}),
    ("rg_lru", 32, {}),
    ("rg_lru+attention", 32, {"heads": 2, "context": 32}),
]
"""Encoder, width and options."""


def draw(generator: torch.Generator, rows: int) -> tuple[Tensor, Tensor]:
    """x [T, B, D] and the value that is asked for, [T, B]; -1 where none is."""
    keys = torch.rand(rows, KEYS, generator=generator).argsort(1)[:, :PAIRS]
    values = torch.randint(VALUES, (rows, PAIRS), generator=generator)
    order = torch.rand(rows, PAIRS, generator=generator).argsort(1)
    written = torch.cat([one_hot(keys, KEYS), one_hot(values, VALUES)], -1)
    asked = torch.cat([one_hot(keys.gather(1, order), KEYS), torch.zeros(rows, PAIRS, VALUES, dtype=torch.long)], -1)
    answer = torch.cat([torch.full_like(values, -1), values.gather(1, order)], 1)
    return torch.cat([written, asked], 1).transpose(0, 1).float(), answer.t()


def learn(encoder: Stack, updates: int, *, seed: int) -> nn.Linear:
    """Train the encoder and the head that is returned."""
    head, generator = nn.Linear(encoder.output_size, VALUES), torch.Generator().manual_seed(seed)
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=updates, pct_start=0.1)
    for _ in range(updates):
        x, answer = draw(generator, ROWS)
        y, _ = encoder(x, encoder.initial_state(ROWS), torch.arange(len(x))[:, None].expand(-1, ROWS) == 0)
        loss = cross_entropy(head(y).flatten(0, 1), answer.flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
    return head


@torch.no_grad()
def accuracy(encoder: Stack, head: nn.Linear, generator: torch.Generator, *, rows: int = 512) -> float:
    """Share of right answers."""
    x, answer = draw(generator, rows)
    y, _ = encoder(x, encoder.initial_state(rows), torch.zeros(x.shape[:2], dtype=torch.bool))
    return float((head(y).argmax(-1) == answer)[answer >= 0].double().mean())


def measure(name: str, width: int, options: dict[str, Any], *, updates: int, seed: int) -> dict[str, object]:
    """A row of the table."""
    torch.manual_seed(seed)
    begun = time.process_time()
    encoder = Stack(KEYS + VALUES, width, mixer=name, conv=0, **options)
    head = learn(encoder, updates, seed=seed)
    return {
        "encoder": name,
        "options": " ".join(f"{key}={value}" for key, value in options.items()),
        "width": width,
        "memory": sum(x.numel() for x in tensors_of(encoder.initial_state(1))),
        "updates": updates,
        "seed": seed,
        "accuracy": round(accuracy(encoder, head, torch.Generator().manual_seed(1000 + seed)), 4),
        "seconds": round(time.process_time() - begun, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=900, help="gradient steps of each")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name, width, own in CONTENDERS:
        for seed in range(options.seeds):
            rows.append(measure(name, width, own, updates=options.updates, seed=seed))
            print(rows[-1], flush=True)
    write_atomic(Path(__file__).parent / "results" / "recall.csv", as_csv(rows))


if __name__ == "__main__":
    main()
