"""MiniGrid's memory levels with fresh layouts: one policy a seed and view, level after level.

    python benchmarks/grid_memory.py --seeds 5 --control 2
    python benchmarks/grid_memory.py --draw

Walking back to look at the cue pays only for a policy that can use what it saw, and learning to use it takes episodes
in which it was seen. So the first stage starts half of the episodes beside the cue (`near`); the others are the levels
as registered. Learning rate and entropy start anew in every stage, observations are normalised: in a grid where most
cells are always walls, keys and balls stand out only then. Every level is judged as registered, greedily, on 400
episodes with seeds of their own; the memoryless control (`--encoder mlp`) goes through the same stages.
Writes to benchmarks/results/: grid-memory.csv, a row a seed and level, grid-memory-VIEW-curves.csv, every point of the
curves, and grid-memory.png, mean and range of the seeds over steps; `--draw` draws it again. A seed that is done stays
done (in --runs).
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from curves import Curves, draw_bands, read_curves, write_curves

from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

RESULTS = Path(__file__).parent / "results"
STAGES: dict[str, list[tuple[str, float, int]]] = {
    "7x7": [
        ("S11", 0.5, 600_000),
        ("S17Random", 0.0, 500_000),
        ("S13", 0.0, 200_000),
        ("S11", 0.0, 200_000),
    ],
    "3x3": [("S9View3", 0.5, 500_000), ("S9View3", 0.0, 500_000)],
}
"""View -> (level, share of episodes that start beside the cue, steps)."""

SETTINGS: dict[str, Any] = {
    "num_envs": 32,
    "horizon": 128,
    "minibatches": 4,
    "lr": 5e-4,
    "lr_final": 0.0,
    "entropy": 0.03,
    "entropy_final": 0.01,
    "normalize_observation": True,
}
EPISODES, HELD_OUT = 400, 10_000


def train_seed(view: str, encoder: str, seed: int, out: Path) -> list[dict[str, Any]]:
    """All stages of one policy; a row a level, with its training curve."""
    name = f"{view}-{encoder}-{seed}"
    done = out / f"{name}.json"
    if done.exists():
        rows: list[dict[str, Any]] = json.loads(done.read_text())
        return rows
    import torch
    from stable_baselines3.common.logger import configure

    from rlmin import PPO, make_vec
    from rlmin.evaluation.evaluate import evaluate
    from rlmin.runs.curves import read_curve
    from rlmin.vector import adapt

    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    agent, steps, began = None, 0, time.perf_counter()
    for number, (level, near, budget) in enumerate(STAGES[view]):
        id = f"rlmin/GridMemory{level}-v0"
        env = make_vec(id, SETTINGS["num_envs"], near=near)
        if agent is None:
            agent = PPO(env, encoder=encoder, seed=seed, **SETTINGS)
        else:
            agent.set_env(env)
        folder = out / f"{name}-stage{number}"
        agent.set_logger(configure(str(folder), ["csv"]))
        agent.learn(budget)
        agent.logger.close()
        (folder / "progress.csv").rename(folder / "metrics.csv")
        curve = read_curve(folder, "rollout/success_rate")
        result = evaluate(agent.policy, adapt(id, num_envs=100), episodes=EPISODES, seed=HELD_OUT)
        row: dict[str, Any] = {"view": view, "level": level, "encoder": encoder, "seed": seed, "steps": steps + budget}
        row |= {"success": result.success_rate, "return": result.mean_return, "length": float(result.lengths.mean())}
        row |= {"seconds": round(time.perf_counter() - began)}
        before = found.get(level, {"curve": []})["curve"]
        row["curve"] = before + [(steps + int(s), float(v)) for s, v in zip(*curve, strict=True)]
        found[level], steps = row, steps + budget
    done.write_text(json.dumps(list(found.values())))
    return list(found.values())


def view_curves(rows: Sequence[dict[str, Any]], view: str) -> Curves:
    """The curves of one view, all levels of a seed in the order of training."""
    points: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for row in rows:
        if row["view"] == view:
            points.setdefault((row["encoder"], row["seed"]), []).extend(map(tuple, row["curve"]))
    return {key: tuple(zip(*sorted(curve), strict=True)) for key, curve in points.items()}


def draw(curves: dict[str, Curves], file: Path) -> None:
    """Share of successful training episodes over steps: mean, shaded from the worst to the best seed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(5.2 * len(curves), 3.6), layout="constrained")
    for axes, (view, own) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        draw_bands(axes, own, width=5)
        edge = 0
        for level, near, budget in STAGES[view]:
            axes.axvline(edge, color="k", linewidth=0.7, linestyle="--")
            axes.text(edge + 1e4, 0.02, level + (f"\n{near:.0%} near" if near else ""), fontsize="x-small")
            edge += budget
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set_ylabel("success, 100 training episodes")
        axes.set_title(f"{view} view: mean, shaded from worst to best seed", fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc=(0.42, 0.1))
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--control", type=int, default=0, help="seeds of the memoryless control")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/grid-memory"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--draw", action="store_true", help="only draw the picture again")
    given = parser.parse_args()
    files = {view: given.results / f"grid-memory-{view}-curves.csv" for view in given.views}
    if not given.draw:
        measure(given, files)
    draw({view: read_curves(file) for view, file in files.items()}, given.results / "grid-memory.png")


def measure(given: argparse.Namespace, files: dict[str, Path]) -> None:
    """Train all seeds, and write the table and the curves."""
    given.runs.mkdir(parents=True, exist_ok=True)
    kinds = [("min_gru", seed) for seed in range(given.seeds)] + [("mlp", seed) for seed in range(given.control)]
    cells = [(view, *kind) for view in given.views for kind in kinds]
    with ProcessPoolExecutor(given.jobs) as pool:
        tables = list(pool.map(train_seed, *zip(*cells, strict=True), [given.runs] * len(cells)))
    rows = [row for table in tables for row in table]
    table = [{name: x for name, x in row.items() if name != "curve"} for row in rows]
    write_atomic(given.results / "grid-memory.csv", as_csv(table))
    for view, file in files.items():
        write_curves(file, view_curves(rows, view))


if __name__ == "__main__":
    main()
