"""Policies of MiniGrid's memory level S17Random, played on larger grids than they were trained on.

    python benchmarks/grid_memory_large.py --seeds 3

A policy is trained on S17Random with the 7 x 7 view, in the first two stages of grid_memory.py. Then it plays S17 to
S501: the agent has to walk back to the cue, up to the length of the hallway, and bring what it saw to the junction.
Episodes are cut after 10 S steps, five times the longest walk there and back. Writes
benchmarks/results/grid-memory-large.csv, a row for each seed and size. A trained policy is kept in --runs.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grid_memory import HELD_OUT, RESULTS, SETTINGS, STAGES

from rlmin import PPO, make_vec
from rlmin.files.atomic import write_atomic
from rlmin.suite.report import as_csv

SIZES = (17, 33, 65, 101, 201, 501)
EPISODES = 200


def train(seed: int, encoder: str, folder: Path) -> PPO:
    """The agent after the first two stages, or as it was saved then."""
    if folder.exists():
        return PPO.load(folder)
    stages = STAGES["7x7"][:2]
    envs = [make_vec(f"rlmin/GridMemory{level}-v0", SETTINGS["num_envs"], near=near) for level, near, _ in stages]
    agent = PPO(envs[0], encoder=encoder, seed=seed, **SETTINGS)
    for env, (_, _, budget) in zip(envs, stages, strict=True):
        agent.set_env(env)
        agent.learn(budget)
    agent.save(folder)
    return agent


def play(agent: PPO, size: int) -> dict[str, Any]:
    """One greedy episode in each of `EPISODES` environments, cut after 10 S steps; `evaluate` wants them to end."""
    env = make_vec("rlmin/GridMemoryS17Random-v0", EPISODES, level=f"S{size}")
    seen, _ = env.reset(seed=HELD_OUT)
    start, going = np.ones(EPISODES, dtype=bool), np.ones(EPISODES, dtype=bool)
    found, length, state = np.zeros(EPISODES, dtype=bool), np.zeros(EPISODES), None
    for _ in range(10 * size):
        action, state = agent.predict(seen.numpy(), state, start, deterministic=True)
        seen, _, terminated, _, infos = env.step(torch.as_tensor(action))
        length += going
        start = terminated.numpy()
        if start.any():
            found |= going & infos["is_success"].numpy() & start
        going &= ~start
        if not going.any():
            break
    env.close()
    return {"size": size, "success": found.mean(), "wrong": (~found & ~going).mean(), "cut": going.mean()} | {
        "steps of an episode": length.mean()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoders", nargs="+", default=["min_gru"])
    parser.add_argument("--runs", type=Path, default=Path("runs/grid-memory-large"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for encoder in given.encoders:
        for seed in range(given.seeds):
            agent = train(seed, encoder, given.runs / f"{encoder}-{seed}")
            for size in SIZES:
                rows.append({"encoder": encoder, "seed": seed} | play(agent, size))
                print(rows[-1], flush=True)
            write_atomic(given.results / "grid-memory-large.csv", as_csv(rows))


if __name__ == "__main__":
    main()
