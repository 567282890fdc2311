"""What training costs beside the environment: steps per second of the bare vector env, of acting in it, of training.

    python benchmarks/overhead.py [--threads 2] [--rounds 5]

On the environment of the `minigrid-memory` preset. Three rows step 16 environments from one process with random
actions: minigrid's own level with a 3x3 view and nothing of rlmin's, rlmin's wrapper of it (which remembers views, so
it is faster), and rlmin's adapter around that. Then acting (a rollout) and training (rollout and update). Medians of
rounds that take turns; the ratio is to minigrid's own.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its levels)
import numpy as np
import torch
import tyro

from rlmin import PPO
from rlmin.train import TrainConfig, parse_pairs, preset_arguments, read_preset

STEPS = 256


def bare(env: gym.vector.VectorEnv[Any, Any, Any]) -> Callable[[], None]:
    """STEPS steps of random actions, left, right or forward."""
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, (STEPS, env.num_envs))

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    settings = tyro.cli(TrainConfig, args=preset_arguments(read_preset("minigrid-memory")))
    pairs = parse_pairs(settings.env_kwargs)
    config = replace(settings.ppo, horizon=STEPS)
    agent = PPO("rlmin/MiniGridMemory-v0", config=config, env_kwargs=pairs)
    own = gym.make_vec(
        "MiniGrid-MemoryS9-v0", num_envs=config.num_envs, vectorization_mode="sync", agent_view_size=pairs["view_size"]
    )
    actions = torch.randint(0, 3, (STEPS, config.num_envs))

    def adapter() -> None:
        for action in actions:
            agent.vector.step(action)

    def training() -> None:
        rollout = agent.collector.collect()
        assert rollout is not None, "nothing stops it"
        agent.update(rollout)

    cases: dict[str, Callable[[], object]] = {
        "minigrid's own vector env": bare(own),
        "rlmin's environment": bare(agent.vector.env),
        "rlmin's environment, adapted": adapter,
        "acting (rollout)": agent.collector.collect,
        "training (rollout, update)": training,
    }
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()  # not counted
    for _ in range(arguments.rounds):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            speeds[name].append(STEPS * config.num_envs / (time.perf_counter() - began))
    base = speeds["minigrid's own vector env"]
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(f"{name:32} {statistics.median(found):>10,.0f} steps/s   {ratio:5.2f} x")


if __name__ == "__main__":
    main()
