"""Trained short, played long: the memory that training episodes begin with, on T-mazes.

    python benchmarks/initial_state.py            # about six minutes on one core

PPO learns mazes of 10 cells and is asked for up to 1000. A rollout holds two episodes. The first begins with what
`initial_state` says: nothing (carried), noise, or the memory that another environment had last. The second begins with
nothing. (zero is the same as carried here, as rollouts end where episodes do.) Otherwise these are PPO's defaults, with
32 features. Greedy play of the final policy; a coin at the junction has 0.5. Writes
benchmarks/results/initial-state.csv.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from rlmin import PPO
from rlmin.evaluation.evaluate import evaluate
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv
from rlmin.vector import adapt

ENV, TRAINED, LENGTHS = "rlmin/TMaze-v0", 10, (10, 20, 40, 100, 1000)
KINDS = ("carried", "noise", "other")
SIZES: dict[str, Any] = {"num_envs": 64, "horizon": 2 * (TRAINED + 1), "width": 32, "epochs": 4}


def measure(kind: str, seed: int, *, steps: int, episodes: int) -> list[dict[str, object]]:
    """A row for each length of the maze."""
    begun = time.process_time()
    agent = PPO(ENV, env_kwargs={"length": TRAINED}, initial_state=kind, seed=seed, **SIZES)
    agent.learn(steps)
    seconds, rows = time.process_time() - begun, list[dict[str, object]]()
    for length in LENGTHS:
        vector = adapt(ENV, num_envs=50, seed=1, env_kwargs={"length": length})
        found = evaluate(agent.policy, vector, episodes=episodes)
        run = {"initial_state": kind, "seed": seed, "steps": agent.num_timesteps, "length": length}
        rows.append(
            run | {"success": found.success_rate, "return": round(found.mean_return, 3), "seconds": round(seconds)}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=160_000, help="steps of training")
    parser.add_argument("--episodes", type=int, default=100, help="episodes of each length")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for seed in range(given.seeds):
        for kind in KINDS:
            found = measure(kind, seed, steps=given.steps, episodes=given.episodes)
            rows += found
            print(kind, seed, *(f"{row['length']}: {row['success']:.2f}" for row in found), flush=True)
    write_atomic(given.results / "initial-state.csv", as_csv(rows))


if __name__ == "__main__":
    main()
