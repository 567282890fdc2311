"""Streaming parity, learned on 16 bits and asked for up to 4096: what a sign of the decay is for.

    python benchmarks/signed_parity.py

A unit of minGRU cannot turn over, as its decay lies in (0, 1); with `signed` it can, and with `hard_gate` it turns over
without losing anything, so that a stream of any length is right. Supervised, so that exploration plays no part: one
layer of width 32 without a convolution, 300 batches of 64 streams, Adam with a falling learning rate. Two minutes on
one core. Writes benchmarks/results/signed-parity.csv, a row for each cell, seed and length: `right` is the share of
streams whose every answer is right, `answers` that of right answers; 0.5 is chance.
"""

from typing import Any

from arguments import read_arguments
from counting import Net, measure

from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

CELLS: dict[str, dict[str, Any]] = {
    "min_gru": {"mixer": "min_gru"},
    "min_gru signed": {"mixer": "min_gru", "signed": True},
    "min_gru signed, hard gate": {"mixer": "min_gru", "signed": True, "hard_gate": True},
    "min_lstm signed, hard gate": {"mixer": "min_lstm", "signed": True, "hard_gate": True},
    "gru": {"mixer": "gru"},
}
PLAN, LENGTHS, STREAMS = ((16, 300),), (16, 64, 256, 1024, 4096), 32


def main() -> None:
    given = read_arguments(__doc__, seeds=5)
    sizes: dict[str, Any] = {"plan": PLAN, "lengths": LENGTHS, "streams": STREAMS}
    rows = measure(CELLS, lambda cell: Net(2, CELLS[cell]), seeds=given.seeds, **sizes)
    write_atomic(given.results / "signed-parity.csv", as_csv(rows))


if __name__ == "__main__":
    main()
