"""The agents that the stages train, and one iteration of PPO in parts."""

from typing import Any

import torch
from record import DEVICE, DRY, measure

import rlmin

LENGTH = 4 if DRY else 50


def make_maze(num_envs: int, **settings: Any) -> rlmin.PPO:
    """PPO in a T-maze on the device: 2 layers of width 128, 4 epochs of 4 minibatches."""
    sizes: dict[str, Any] = {"horizon": 128, "width": 128, "minibatches": 4, "epochs": 4}
    if DRY:
        sizes |= {"horizon": 8, "width": 8, "epochs": 1}
        num_envs = min(num_envs, 8)
    kwargs = {"length": LENGTH}
    return rlmin.PPO("rlmin/TMaze-v0", env_kwargs=kwargs, device=DEVICE, num_envs=num_envs, **{**sizes, **settings})


def iterate(agent: rlmin.PPO, count: int) -> tuple[float, float]:
    """Median seconds of `count` rollouts, and of the updates from them."""
    collects, updates = list[float](), list[float]()
    for _ in range(count):
        with torch.autocast(agent.device.type, dtype=torch.bfloat16, enabled=agent.config.autocast):
            took, rollout = measure(agent.collector.collect)
        collects.append(took)
        with agent.training():
            took, _ = measure(agent.update, rollout)
        updates.append(took)
    return sorted(collects)[count // 2], sorted(updates)[count // 2]


def is_graph(agent: rlmin.PPO) -> bool:
    """Whether the rollouts of an agent run as one CUDA graph."""
    graph = agent.collector.graph
    return graph is not None and not graph.failed and bool(graph.held)
