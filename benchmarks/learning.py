"""Learning curves of a preset over seeds, beside the control that has no memory.

    python benchmarks/learning.py minigrid-memory --seeds 5 --control 2

Every run is `rlmin train PRESET --seed S` (the control adds `--encoder mlp`), one after the other or `--jobs` at once;
options that are not this script's own go to `rlmin train`.
Writes to benchmarks/results/: PRESET.csv, a row a run (greedy evaluation at the end, steps to the threshold, seconds),
and PRESET.png, mean return over steps.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """One cell of the table."""

    preset: str
    encoder: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]


def train_one(run: Run) -> float:
    """Train; wall-clock seconds it took."""
    import contextlib
    import io

    import torch

    from rlmin.cli import main as rlmin

    torch.set_num_threads(1)
    control = ["--encoder", run.encoder] if run.encoder == "mlp" else []
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        settings = ["--seed", str(run.seed), "--folder", str(run.folder), "--threads", "1", "--eval-episodes", "0"]
        rlmin(["train", run.preset, *settings, *control, *run.arguments])
    return time.perf_counter() - began


def first_above(steps: Sequence[float], values: Sequence[float], threshold: float) -> int | None:
    """Steps at which the curve first reached the threshold."""
    return next((int(s) for s, v in zip(steps, values, strict=True) if v >= threshold), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--control", type=int, default=0, help="seeds of the memoryless control")
    parser.add_argument("--threshold", type=float, default=0.93)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--name", help="of the files written; the preset's by default")
    arguments, extra = parser.parse_known_args()

    from rlmin.commands.train import evaluate_run, parse_pairs, read_preset
    from rlmin.runs.curves import read_curve

    name = arguments.name or arguments.preset
    cells = [("min_gru", s) for s in range(arguments.seeds)] + [("mlp", s) for s in range(arguments.control)]
    runs = [Run(arguments.preset, e, s, arguments.runs / f"{name}-{e}-{s}", tuple(extra)) for e, s in cells]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        seconds = list(pool.map(train_one, runs))

    other = parse_pairs(read_preset(arguments.preset).get("eval_kwargs", []))
    rows = []
    for run, took in zip(runs, seconds, strict=True):
        steps, values = read_curve(run.folder, "rollout/ep_rew_mean")
        result = evaluate_run(run.folder)
        fresh = evaluate_run(run.folder, env_kwargs=other) if other else None
        rows.append(
            {
                "encoder": run.encoder,
                "seed": run.seed,
                "steps": int(steps[-1]),
                f"steps to {arguments.threshold:g} (training, mean of 100)": first_above(
                    steps, values, arguments.threshold
                ),
                "greedy return": round(result.mean_return, 3),
                "greedy success": result.success_rate and round(result.success_rate, 3),
                "greedy return, variant": fresh and round(fresh.mean_return, 3),
                "seconds": round(took),
            }
        )
        print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(runs, RESULTS / f"{name}.png", arguments.threshold)


def draw(runs: Sequence[Run], file: Path, threshold: float) -> None:
    """Mean return over steps, a line a run; the memoryless control in grey."""
    from matplotlib.figure import Figure

    from rlmin.runs.curves import read_curve

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        colour = "0.6" if run.encoder == "mlp" else f"C{run.seed}"
        label = f"{run.encoder}{' (no memory)' if run.encoder == 'mlp' else ''}, seed {run.seed}"
        axes.plot(*read_curve(run.folder, "rollout/ep_rew_mean"), color=colour, label=label)
    axes.axhline(threshold, color="k", linewidth=0.7, linestyle="--")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return, mean of 100 training episodes")
    axes.set_title(runs[0].preset)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
