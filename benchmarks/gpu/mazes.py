"""Stage D2: PPO learns the T-maze on the device."""

from typing import Any

from iteration import LENGTH
from record import DEVICE, DRY, add, measure

import rlmin
from rlmin.evaluation.evaluate import evaluate
from rlmin.vector import adapt


def check_learning() -> None:
    """The preset of the T-maze with a thousand mazes."""
    num_envs, total = (8, 8 * 51) if DRY else (1024, 6_000_000)
    kwargs = {"length": LENGTH}
    settings: dict[str, Any] = {"horizon": 51, "width": 64, "minibatches": 8, "lr": 5e-4, "lr_final": 0.0}
    settings |= {"epochs": 4, "entropy": 0.1, "num_envs": num_envs, "seed": 0}
    agent = rlmin.PPO("rlmin/TMaze-v0", env_kwargs=kwargs, device=DEVICE, **settings)
    took, _ = measure(agent.learn, total)
    trained = f"{took:.1f} s, return in training {agent.collector.statistics.mean_return}"
    add("T-maze, 1024 mazes: end to end", agent.num_timesteps / took, "steps/s", trained)
    vector = adapt("rlmin/TMaze-v0", num_envs=8 if DRY else 256, device=DEVICE, env_kwargs=kwargs)
    found = evaluate(agent.policy, vector, episodes=8 if DRY else 256)
    add("T-maze, greedy return", found.mean_return, "", str(found))
