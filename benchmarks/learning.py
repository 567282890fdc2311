"""Learning curves of a preset over seeds, beside the control that has no memory.

    python benchmarks/learning.py minigrid-memory --seeds 5 --control 2
    python benchmarks/learning.py minigrid-memory --draw

Every run is `rlmin train PRESET --seed S` (the control adds `--encoder mlp`), one after the other or `--jobs` at once;
options that are not this script's own go to `rlmin train`. A run that has ended is not trained again.
Writes to benchmarks/results/: PRESET.csv, a row a run (greedy evaluation at the end, steps to the threshold, seconds),
PRESET-curves.csv, every point of the curves, and PRESET.png, mean and range of the seeds over steps. `--draw` draws the
picture again from the second file.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curves import Curves, draw_bands, read_curves, write_curves

from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Run:
    """One cell of the table."""

    preset: str
    encoder: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]


def train_one(run: Run) -> None:
    """Train a run, unless it has ended."""
    import contextlib
    import io

    from rlmin.cli import main as rlmin

    if (run.folder / "curve.png").exists():  # drawn at the very end
        return
    control = ["--encoder", run.encoder] if run.encoder == "mlp" else []
    with contextlib.redirect_stdout(io.StringIO()):
        settings = ["--seed", str(run.seed), "--folder", str(run.folder), "--threads", "1", "--eval-episodes", "0"]
        rlmin(["train", run.preset, *settings, *control, *run.arguments])


def first_above(steps: Sequence[float], values: Sequence[float], threshold: float) -> int | None:
    """Steps at which the curve first reached the threshold."""
    return next((int(s) for s, v in zip(steps, values, strict=True) if v >= threshold), None)


def judge(run: Run, threshold: float, variant: dict[str, Any]) -> dict[str, Any]:
    """The row of a run: greedy play at the end, and how its curve got there."""
    from rlmin.commands.train import evaluate_run
    from rlmin.runs.curves import read_curve

    steps, values = read_curve(run.folder, "rollout/ep_rew_mean")
    result = evaluate_run(run.folder)
    fresh = evaluate_run(run.folder, env_kwargs=variant) if variant else None
    return {
        "encoder": run.encoder,
        "seed": run.seed,
        "steps": int(steps[-1]),
        f"steps to {threshold:g} (training, mean of 100)": first_above(steps, values, threshold),
        "greedy return": round(result.mean_return, 3),
        "greedy success": result.success_rate and round(result.success_rate, 3),
        "greedy return, variant": fresh and round(fresh.mean_return, 3),
        "seconds": round(read_curve(run.folder, "time/time_elapsed")[1][-1]),
    }


def draw(curves: Curves, file: Path, *, title: str, threshold: float) -> None:
    """Training return over steps, mean and range of the seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    draw_bands(axes, curves, width=5)
    axes.axhline(threshold, color="k", linewidth=0.7, linestyle="--")
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_ylabel("return, mean of 100 training episodes")
    axes.set_title(f"{title}: mean, shaded from worst to best seed", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and those for `rlmin train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--control", type=int, default=0, help="seeds of the memoryless control")
    parser.add_argument("--threshold", type=float, default=0.93)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--name", help="name of the files written; the preset's by default")
    parser.add_argument("--draw", action="store_true", help="only draw the picture again")
    return parser.parse_known_args()


def main() -> None:
    arguments, extra = parse()
    name = arguments.name or arguments.preset
    if not arguments.draw:
        measure(arguments, name, tuple(extra))
    curves = read_curves(RESULTS / f"{name}-curves.csv")
    draw(curves, RESULTS / f"{name}.png", title=name, threshold=arguments.threshold)


def measure(arguments: argparse.Namespace, name: str, extra: tuple[str, ...]) -> None:
    """Train all runs, and write the table and the curves."""
    from rlmin.commands.train import parse_pairs, read_preset
    from rlmin.runs.curves import read_curve

    cells = [("min_gru", s) for s in range(arguments.seeds)] + [("mlp", s) for s in range(arguments.control)]
    runs = [Run(arguments.preset, e, s, arguments.runs / f"{name}-{e}-{s}", extra) for e, s in cells]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train_one, runs))
    variant = parse_pairs(read_preset(arguments.preset).get("eval_kwargs", []))
    rows = []
    for run in runs:
        rows.append(judge(run, arguments.threshold, variant))
        print(rows[-1], flush=True)
    write_atomic(RESULTS / f"{name}.csv", as_csv(rows))
    curves = {(run.encoder, run.seed): read_curve(run.folder, "rollout/ep_rew_mean") for run in runs}
    write_curves(RESULTS / f"{name}-curves.csv", curves)


if __name__ == "__main__":
    main()
