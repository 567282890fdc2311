"""Streaming parity, learned over 16 bits and played over up to 4096: who keeps a state, and who counts.

    python benchmarks/parity.py
    python benchmarks/parity.py --draw

One bit of state that every 1 flips is enough for streams of any length. GRU and LSTM can hold it. The gates of minGRU
and minLSTM lie in (0, 1) and do not see the memory, so no unit of theirs can change its sign when a 1 comes: they can
only add up, and read the parity off the sum as far as they have seen sums. Trains the cells of the memory suite
(`rlmin bench memory --tasks rlmin/StreamingParity16-v0`), which stay trained (in --runs), and writes to
benchmarks/results/: parity.csv, a row a run and length, and parity.png.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curves import COLOURS, NAMES

from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

TASK = "rlmin/StreamingParity16-v0"
LENGTHS = (8, 16, 24, 32, 64, 256, 1024, 4096)
EPISODES = 200


def play(out: Path, jobs: int) -> list[dict[str, Any]]:
    """Train what is not trained yet; the mean return of every run at every length."""
    from rlmin.commands.evaluate import evaluate_run
    from rlmin.suite import SuiteOptions
    from rlmin.suite.executors.options import ExecutorOptions
    from rlmin.suite.run import run_cells

    suite = SuiteOptions(tasks=(TASK,)).select()
    cells = suite.cells()
    run_cells(cells, out / suite.name, ExecutorOptions(jobs=jobs))
    rows = []
    for cell in cells:
        for length in LENGTHS:
            folder, kwargs = cell.folder(out / suite.name), {"length": length}
            found = evaluate_run(folder, env_kwargs=kwargs, episodes=EPISODES, num_envs=EPISODES, seed=10_000)
            row = {"encoder": cell.encoder, "seed": cell.seed, "length": length, "return": found.mean_return}
            rows.append(row | {"all right": found.success_rate})
            print(row, flush=True)
    return rows


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Return over length: mean, shaded from the worst to the best seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        seeds: dict[str, list[float]] = {}
        for row in rows:
            if row["encoder"] == encoder:
                seeds.setdefault(str(row["seed"]), []).append(float(row["return"]))
        values = np.stack(list(seeds.values()))
        label = f"{NAMES.get(encoder, encoder)} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        axes.plot(LENGTHS, values.mean(0), color=COLOURS.get(encoder), marker=".", label=label)
        axes.fill_between(LENGTHS, values.min(0), values.max(0), color=COLOURS.get(encoder), alpha=0.2, linewidth=0)
    axes.axvline(16, color="k", linestyle="--", linewidth=0.8)
    axes.text(16.5, 0.93, "trained on", fontsize="small")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("bits in the stream")
    axes.set_ylabel("return (1: all right, 0: chance)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/suite"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--draw", action="store_true", help="only draw the picture again, from parity.csv")
    given = parser.parse_args()
    table = given.results / "parity.csv"
    if given.draw:
        with table.open(newline="") as file:
            draw(list(csv.DictReader(file)), given.results / "parity.png")
        return
    rows = play(given.runs, given.jobs)
    write_atomic(table, as_csv(rows))
    draw(rows, given.results / "parity.png")


if __name__ == "__main__":
    main()
