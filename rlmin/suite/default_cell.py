"""A cell of the defaults suite: one agent with default settings on one task, evaluated ten times during training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.commands.evaluate import evaluate_run
from rlmin.commands.train_config import TrainConfig
from rlmin.runs.curves import read_curve
from rlmin.suite.cells import Cell, Row, train_or_resume

EVALUATIONS = 10
EPISODES = 20  # episodes of each evaluation, greedy
FINAL_EPISODES = 100
SEED = 20_000  # random seed of the environments of every evaluation, which are not used in training
LAST = 5
"""Evaluations at the end whose worst is reported: an agent has to keep what it learned."""


@dataclass(frozen=True)
class DefaultCell(Cell):
    """One training run of `rlmin train` with the defaults; `encoder` is the name of its column.

    Its settings are the suite's entries for the task: env, env_kwargs, steps, floor, ceiling, settings; and the
    column's own.
    """

    @property
    def config(self) -> TrainConfig:
        own = {**self.settings["column"], **self.settings["settings"]}
        pairs = tuple(f"{key}={value}" for key, value in self.settings["env_kwargs"].items())
        run: dict[str, Any] = {"threads": 1, "eval_episodes": 0, "evaluations": EVALUATIONS}
        run["evaluation_share"] = 1000.0  # all of them, at any length of episodes
        env, steps = self.settings["env"], self.settings["steps"]
        return TrainConfig(env=env, env_kwargs=pairs, total_timesteps=steps, seed=self.seed, **run, **own)

    def run(self, folder: Path) -> Row:
        """Train in `folder`, or go on there, and score: the row of the cell."""
        train_or_resume(self.config, folder)
        steps, returns = read_curve(folder, "eval/mean_reward")
        final = evaluate_run(folder, episodes=FINAL_EPISODES, num_envs=EPISODES, seed=SEED + 1)
        return self.row(steps, returns, final.mean_return)

    def row(self, steps: Sequence[float], returns: Sequence[float], final: float) -> Row:
        """The row of the cell.

        Args:
            steps, returns: one for each evaluation during training.
            final: mean return of the last policy over more episodes.
        """
        floor, ceiling = self.settings["floor"], self.settings["ceiling"]
        facts: Row = {"task": self.task, "encoder": self.encoder, "seed": self.seed, "steps": int(steps[-1])}
        facts |= {"final": final, "worst": min(returns[-LAST:]), "reached": find_steps(steps, returns, floor)}
        return facts | {"floor": floor, "ceiling": ceiling, "points": list(steps), "curve": list(returns)}


def find_steps(steps: Sequence[float], returns: Sequence[float], floor: float) -> float | None:
    """Steps after which a policy first covered nine tenths of the way from `floor` to the best of the curve.

    None where no policy was above `floor`.
    """
    best = max(returns)
    if best <= floor:
        return None
    first = int(np.argmax(np.asarray(returns) >= floor + 0.9 * (best - floor)))
    return float(steps[first])


def settings_of(task: str, own: Mapping[str, Any], column: Mapping[str, Any], *, steps: int) -> dict[str, Any]:
    """The settings of a cell, from the suite's entries for its task and its column."""
    usual = {"env": task, "env_kwargs": {}, "settings": {}, "steps": steps}
    return {**usual, **{key: x for key, x in own.items() if key != "seeds"}, "column": dict(column)}
