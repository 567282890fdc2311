"""d3rlpy's DecisionTransformer as a column of the offline suite: same data, budget and sizes, other settings its own.

Its learning rate and gradient clipping follow rlmin's: its own warm-up of 10,000 updates
would be longer than the whole training. Its budget counts logged steps, not the padding of windows.
Its actions lie in [-1, 1], so those of the data are scaled; rewards have the unit of rlmin's agents. It
plays one environment at a time.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from rlmin.agents.decision_data import facts, round_scale
from rlmin.bench.d3rlpy import make_replay_buffer
from rlmin.bench.peers import Missing, need
from rlmin.checks import require
from rlmin.commands.train_config import DecisionTrainConfig
from rlmin.data import Episode, load_dataset
from rlmin.learning.schedule import schedule
from rlmin.suite.cells import Row
from rlmin.suite.offline_cell import OfflineCell, resolve_target, result
from rlmin.vector.make import import_provider


@dataclass(frozen=True)
class PeerCell(OfflineCell):
    """d3rlpy's DecisionTransformer on one dataset; `width`, `layers`, `windows`, `rows` and `lr` are its sizes."""

    def run(self, folder: Path) -> Row:
        """Train and score; only the row is kept.

        Raises:
            ValueError: d3rlpy is not installed, or does not support the data.
        """
        try:
            return _run(self)
        except Missing as error:
            raise ValueError(str(error)) from None


def _run(cell: PeerCell) -> Row:
    config = cell.config
    dataset = load_dataset(cell.task, trust=config.trust)
    assert dataset.reference is not None and dataset.env is not None, "recipes write both"
    if not isinstance(dataset.observation_space, gym.spaces.Box):
        raise ValueError(f"dataset {cell.task!r}: d3rlpy's agent needs vectors, got {dataset.observation_space}")
    kind, scale = dataset.action_space, config.return_scale or round_scale(dataset)
    episodes = list(_episodes(cell.task, scale))
    longest = max(len(one.rewards) for one in episodes)
    batch = config.rows * _steps_of_a_window([len(one.rewards) for one in episodes], config.steps)
    updates = math.ceil(config.total_timesteps / batch)
    need("d3rlpy").seed(cell.seed)
    agent = _agent(config, kind, updates=updates, longest=longest)
    buffer = make_replay_buffer(episodes, choices=int(kind.n) if isinstance(kind, gym.spaces.Discrete) else None)
    quiet = need("d3rlpy.logging").NoopAdapterFactory()
    agent.fit(buffer, n_steps=updates, n_steps_per_epoch=updates, logger_adapter=quiet, show_progress=False)
    results, asked, data_facts = list[Row](), cell.settings["asked"], facts(dataset)
    for variant, target in product(asked["variants"], asked["targets"]):
        aim = resolve_target(target, data_facts) / scale
        with closing(gym.make(import_provider(dataset.env["id"]), **{**dataset.env["kwargs"], **variant})) as env:
            played = [_play(agent, env, aim, scale, cell.held_out_seed + i) for i in range(asked["episodes"])]
        returns, lengths = zip(*played, strict=True)
        mean = float(np.mean(returns)), float(np.mean(lengths))
        results.append(result(variant, target, *mean, None, dataset.reference))
    return cell.row(round(updates * batch), data_facts, results)


def _episodes(dataset: str, scale: float) -> Iterator[Episode]:
    """The episodes of a Minari dataset in the environment's own numbers, rewards in units of the scale."""
    for one in require("minari", extra="offline").load_dataset(dataset).iterate_episodes():
        rewards = np.asarray(one.rewards, dtype=np.float32) / scale
        observations = np.asarray(one.observations, dtype=np.float32)
        yield Episode(observations, np.asarray(one.actions), rewards, bool(one.terminations[-1]))


def _steps_of_a_window(lengths: Sequence[int], context: int) -> float:
    """Mean number of logged steps in a window: it ends at any step, and is padded before the first."""
    full = sum(max(length - context + 1, 0) * context for length in lengths)
    short = sum(min(length, context - 1) * (min(length, context - 1) + 1) // 2 for length in lengths)
    return (full + short) / sum(lengths)


def _agent(config: DecisionTrainConfig, actions: gym.Space[Any], *, updates: int, longest: int) -> Any:
    """d3rlpy's algorithm, not yet trained."""
    algos, models = need("d3rlpy.algos"), need("d3rlpy.models")
    settings: dict[str, Any] = {
        "batch_size": config.rows,
        "context_size": config.steps,
        "max_timestep": longest,
        "num_layers": config.layers,
        "num_heads": config.heads or 4,
        "learning_rate": config.lr,
        "encoder_factory": models.VectorEncoderFactory([config.width], exclude_last_activation=True),
        "observation_scaler": need("d3rlpy.preprocessing").StandardObservationScaler(),
    }
    warmup = min(config.warmup_steps, updates // 10)
    optimizers = need("d3rlpy.optimizers")
    shared = {"weight_decay": config.weight_decay, "clip_grad_norm": config.max_grad_norm}
    if not isinstance(actions, gym.spaces.Box):  # its own schedule counts tokens, that is steps
        tokens = config.rows * config.steps
        settings |= {"warmup_tokens": warmup * tokens, "final_tokens": updates * tokens}
        adam = optimizers.AdamWFactory(**shared)
        return algos.DiscreteDecisionTransformerConfig(optim_factory=adam, **settings).create()
    adam = optimizers.AdamWFactory(lr_scheduler_factory=_schedule(config, max(warmup, 1), updates), **shared)
    bounds = need("d3rlpy.preprocessing").MinMaxActionScaler(minimum=actions.low, maximum=actions.high)
    return algos.DecisionTransformerConfig(optim_factory=adam, action_scaler=bounds, **settings).create()


def _schedule(config: DecisionTrainConfig, warmup: int, updates: int) -> Any:
    """rlmin's learning rate as a factor, in the form of d3rlpy's optimizers."""

    def factor(update: int) -> float:
        return min((update + 1) / warmup, 1.0) * schedule(config.lr, config.last_lr, update / updates) / config.lr

    class Falling(need("d3rlpy.optimizers").WarmupSchedulerFactory):  # type: ignore[misc]
        def create(self, optim: torch.optim.Optimizer) -> LambdaLR:
            return LambdaLR(optim, factor)

    return Falling(warmup_steps=warmup)


def _play(agent: Any, env: gym.Env[Any, Any], aim: float, scale: float, seed: int) -> tuple[float, int]:
    """Return and length of one episode, greedy."""
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    sampler = need("d3rlpy.algos").GreedyTransformerActionSampler() if discrete else None
    actor = agent.as_stateful_wrapper(target_return=aim, action_sampler=sampler)
    observation, _ = env.reset(seed=seed)
    total, reward, length, over = 0.0, 0.0, 0, False
    while not over:
        action = actor.predict(np.asarray(observation, dtype=np.float32), reward / scale)
        observation, earned, terminated, truncated, _ = env.step(action)
        reward, over, length = float(earned), terminated or truncated, length + 1
        total += reward
    return total, length
