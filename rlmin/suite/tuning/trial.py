"""One trial: several seeds of one choice of settings, trained side by side and evaluated at equal distances."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlmin.agents.agent import Agent
from rlmin.commands.train import make_agent
from rlmin.commands.watchdog import play
from rlmin.files.atomic import write_atomic
from rlmin.files.read_json import read_json
from rlmin.policy.fit import is_conditioned
from rlmin.runs.callbacks import Hook
from rlmin.runs.checkpoint import LEARNER
from rlmin.runs.statistics import interquartile_mean
from rlmin.suite.tuning.space import change_settings
from rlmin.vector import adapt
from rlmin.vector.arena import Arena

RETURNS, STOP = "returns.json", "stop"
"""Files of a trial: the returns so far, and one that asks it to end early."""


@dataclass(frozen=True)
class Trial:
    """The work of one trial.

    Args:
        config: of the run.
        settings: of the trial, which win.
        folder: of the trial, shared by all nodes.
        seeds: number of agents.
        checks: number of evaluations.
        episodes: of each agent in an evaluation.
    """

    config: Any
    settings: Mapping[str, Any]
    folder: Path
    seeds: int
    checks: int
    episodes: int

    def __call__(self) -> None:
        """Train, or go on from the last evaluation, until the end or until the file `stop` is there."""
        torch.set_num_threads(self.config.threads or 1)
        with contextlib.redirect_stdout(io.StringIO()):
            agents = [self._make_agent(number) for number in range(self.seeds)]
            try:
                for check in range(len(read_returns(self.folder)) + 1, self.checks + 1):
                    if (self.folder / STOP).exists():
                        return
                    self._advance(agents, check)
            finally:
                for agent in agents:
                    agent.close()

    def _advance(self, agents: Sequence[Agent], check: int) -> None:
        """Train every agent up to an evaluation, and write down what they return."""
        total = self.config.total_timesteps
        found = []
        for number, agent in enumerate(agents):
            until = total * check // self.checks
            if agent.num_timesteps < until:
                agent.learn(total - agent.num_timesteps, Until(agent, until), reset_num_timesteps=False)
                agent.save(self._folder(number))
            found.append(self._evaluate(agent))
        returns = [*read_returns(self.folder), found]
        write_atomic(self.folder / RETURNS, json.dumps(returns).encode())

    def _make_agent(self, number: int) -> Agent:
        agent = make_agent(replace(change_settings(self.config, self.settings), seed=self.config.seed + number))
        agent.run |= self.config.run
        if (self._folder(number) / LEARNER).exists():
            agent.resume(self._folder(number))
        return agent

    def _folder(self, number: int) -> Path:
        return self.folder / f"seed-{self.config.seed + number}"

    def _evaluate(self, agent: Agent) -> float:
        """Mean return of greedy episodes, the same ones for all trials."""
        spec = agent.env_spec
        if spec["id"] is None:
            raise ValueError("tune: expected an environment to score in, the data name none; name it with --env ID")
        arena = Arena(id=spec["id"], kwargs=spec["kwargs"], device=str(agent.device))
        if is_conditioned(agent.policy):
            return play(agent, arena, None, episodes=self.episodes).mean_return
        vector = adapt(arena(min(self.episodes, 50)), device=agent.device)
        try:
            return play(agent, arena, vector, episodes=self.episodes).mean_return
        finally:
            vector.close()


class Until(Hook):
    """Ends training at a step; the schedules are still those of all steps."""

    def __init__(self, agent: Agent, until: int) -> None:
        self.agent, self.until = agent, until

    def on_rollout_end(self) -> None:
        if self.agent.num_timesteps >= self.until:
            self.agent.stop_requested = True


def read_returns(folder: Path) -> list[list[float]]:
    """Mean returns of a trial so far: a row an evaluation, an entry a seed."""
    file = folder / RETURNS
    found: list[list[float]] = read_json(file, list) if file.exists() else []
    return found


def summarise(returns: Sequence[float], objective: str) -> float:
    """The score of a trial, of one return a seed: see `TuneOptions.objective`."""
    x: Any = np.asarray(returns, dtype=np.float64)
    if objective == "worst":
        return float(x.min())
    return float(x.mean() if objective == "mean" else interquartile_mean(x))
