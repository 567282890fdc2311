"""Overhead: the cost of acting and training beside that of the environment, on MiniGrid memory.

On the environment of the `minigrid-memory` preset, 16 of them in one process, 256 steps a turn. Three rows take random
actions: minigrid's own level with a 3x3 view, without rlmin; rlmin's wrapper of it, which caches views and so is
faster; and rlmin's adapter around that. Two more act (a rollout) and train (rollout and update) with the preset's
policy. `relative` is to minigrid's own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from rlmin.agents.ppo import PPO
from rlmin.bench.options import Options
from rlmin.bench.report import Table
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.train import TrainConfig, parse_pairs, preset_arguments, read_preset
from rlmin.vector.make import make_vec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, QUICK = 256, 16
BARE = "minigrid's own vector env"


def run(options: Options) -> Table:
    """Steps a second of environment, acting and training; see the top of this file."""
    steps = QUICK if options.quick else STEPS
    settings = parse_agent(TrainConfig, preset_arguments(read_preset("minigrid-memory")), prog="rlmin bench overhead")
    pairs = parse_pairs(settings.env_kwargs)
    config = replace(settings.agent_settings, horizon=steps)
    agent = PPO(settings.env, config=config, env_kwargs=pairs, device=options.device)
    own = make_vec("MiniGrid-MemoryS9-v0", config.num_envs, agent_view_size=pairs["view_size"])
    actions = torch.randint(0, 3, (steps, config.num_envs))

    def adapter() -> None:
        for action in actions:
            agent.vector.step(action)

    def training() -> None:
        rollout = agent.collector.collect()
        assert rollout is not None, "nothing stops it"
        agent.update(rollout)

    cases: dict[str, Callable[[], object]] = {
        BARE: bare(own, steps),
        "rlmin's environment": bare(agent.vector.env, steps),
        "rlmin's environment, adapted": adapter,
        "acting (rollout)": agent.collector.collect,
        "training (rollout, update)": training,
    }
    timing = options.measure("16 environments", cases, rounds=9, seconds=20)
    table = Table()
    for name in cases:
        speed = steps * config.num_envs / timing.median(name)
        relative = 1 / timing.ratio(name, BARE)
        table.add({"what": name, "steps/s": round(speed), "relative": relative, "rounds": timing.rounds})
    return table


def bare(env: gym.vector.VectorEnv[Any, Any, Any], steps: int) -> Callable[[], None]:
    """Steps of random actions: left, right or forward."""
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, (steps, env.num_envs))

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def draw(table: Table, figure: "Figure") -> None:
    """Steps a second, a bar a row."""
    axes = figure.subplots()
    bars = axes.barh(table.each("what")[::-1], table.numbers("steps/s")[::-1], color="C0")
    axes.bar_label(bars, [f"{x:,.0f}" for x in table.numbers("steps/s")[::-1]], padding=3, fontsize=9)
    axes.margins(x=0.12)
    axes.set_xlabel("environment steps a second, 16 environments")
    axes.grid(axis="x", alpha=0.3)
