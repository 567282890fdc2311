"""Watchdog: greedy evaluations while an agent trains, and the best policy so far, kept in a folder of its own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rlmin.agents.agent import Agent
from rlmin.evaluation.evaluate import Evaluation, evaluate
from rlmin.evaluation.play import LONGEST
from rlmin.evaluation.targets import evaluate_targets
from rlmin.policy.fit import is_conditioned
from rlmin.runs.callbacks import Hook
from rlmin.runs.checkpoint import LEARNER, read_header
from rlmin.vector import Vector, adapt
from rlmin.vector.arena import Arena

BEST = "best"
"""Folder of the best policy, inside that of the run."""

EPISODES = 20
"""Episodes of one evaluation, played at once."""

SEED = 20_000
"""Random seed of every evaluation: all play the same episodes, which neither training nor a test plays."""


SHARE = 0.25
"""Share of steps if a run does not set it: see `Watchdog`."""


class Score(NamedTuple):
    """Result of one evaluation."""

    mean_return: float  # env units
    num_timesteps: int  # steps trained so far
    error: float = 0.0  # standard error of the mean return, env units

    def beats(self, other: "Score") -> bool:
        """Whether the mean return is larger by more than two standard errors of the difference."""
        return self.mean_return - other.mean_return > 2 * math.hypot(self.error, other.error)


class Watchdog(Hook):
    """Evaluates the policy `count` times, evenly spread over training, and keeps the best.

    Every evaluation is a row of the log (`eval/mean_reward`, `eval/mean_ep_length`, `eval/success_rate`, the names of
    stable-baselines3's EvalCallback). A policy at least as good as the best so far is saved in `RUN/best`, a run folder
    like any other. Training is unchanged: environments and random numbers are the watchdog's own. A return-conditioned
    agent is asked for the largest return of its data.

    Args:
        agent: has an environment with an id.
        folder: the run.
        count: evaluations in `total` steps.
        share: steps that evaluations may take, as a share of training steps; an evaluation that comes too early waits.
        total: steps at which training ends.
    """

    def __init__(self, agent: Agent, folder: Path, *, count: int, share: float, total: int) -> None:
        self.agent, self.folder, self.interval = agent, folder / BEST, max(total // count, 1)
        self.share = share
        spec = agent.env_spec
        self.arena = Arena(id=spec["id"], kwargs=spec["kwargs"], device=str(agent.device))
        self.vector: Vector | None = None
        self.best = read_best(folder)
        self.longest = min(int(share * total / EPISODES), LONGEST)  # steps of an episode; 0: nothing is played
        known = agent.run.get("watchdog", {})
        self.played = known.get("played", 0)
        self.next = self._after(agent.num_timesteps) if known.get("interval") != self.interval else known["next"]

    def close(self) -> None:
        """Close the environments."""
        if self.vector is not None:
            self.vector.close()

    def on_rollout_start(self) -> None:
        steps = self.agent.num_timesteps
        if self.longest and steps >= self.next and self.played <= self.share * steps:
            self.next = self._after(steps)
            self.evaluate()

    def on_training_end(self) -> None:
        if self.agent.num_timesteps >= self.agent.total_timesteps and self.longest:
            self.evaluate()

    def _after(self, steps: int) -> int:
        """The first step after `steps` at which an evaluation is due."""
        return (steps // self.interval + 1) * self.interval

    def evaluate(self) -> None:
        """Evaluate now, on the main rank; the others wait, and all save where the policy is the best."""
        ranks = self.agent.ranks
        is_best = self._evaluate() if ranks.is_main else False
        self.played, self.longest = ranks.broadcast(torch.tensor([self.played, self.longest])).tolist()
        if ranks.any(is_best):
            self.agent.save(self.folder)

    def _evaluate(self) -> bool:
        """Evaluate and log; returns whether no policy was better.

        If episodes are too long for this training, a line says so, and evaluations stop.
        """
        agent = self.agent
        try:
            found = self._play()
        except ValueError as error:
            print(f"no more evaluations while training: {error}", flush=True)
            self.longest = 0
            return False
        self.played += int(found.lengths.sum())
        agent.run["watchdog"] = {"interval": self.interval, "next": self.next, "played": self.played}
        self._log(found)
        score = Score(found.mean_return, agent.num_timesteps, found.return_error)
        agent.run["last"] = score._asdict()
        if self.best is not None and score.mean_return < self.best.mean_return:
            return False
        self.best = score
        agent.run["best"] = score._asdict()
        return True

    def _play(self) -> Evaluation:
        if self.vector is None and not is_conditioned(self.agent.policy):
            self.vector = adapt(self.arena(EPISODES), device=self.agent.device)
        return play(self.agent, self.arena, self.vector, episodes=EPISODES, max_steps=self.longest)

    def _log(self, found: Evaluation) -> None:
        logger = self.agent.logger
        logger.record("time/total_timesteps", self.agent.num_timesteps)
        logger.record("eval/mean_reward", found.mean_return)
        logger.record("eval/mean_ep_length", float(found.lengths.mean()))
        if found.success_rate is not None:
            logger.record("eval/success_rate", found.success_rate)
        logger.dump(self.agent.num_timesteps)


def play(
    agent: Agent, arena: Arena, vector: Vector | None, *, episodes: int, max_steps: int = LONGEST, seed: int = SEED
) -> Evaluation:
    """Greedy episodes; a return-conditioned agent is asked for the largest return of its data.

    Args:
        agent: plays.
        arena: makes environments for a conditioned agent.
        vector: environments for any other agent, reset by `seed`.
        episodes, max_steps, seed: see `rlmin.evaluation.evaluate.evaluate`.

    Raises:
        ValueError: an episode is longer than `max_steps`.
    """
    if vector is not None:
        return evaluate(agent.policy, vector, episodes=episodes, seed=seed, max_steps=max_steps)
    data = agent.run.get("data")
    assert data is not None, "a conditioned agent has learned from data"
    options: dict[str, Any] = {"num_envs": EPISODES, "return_scale": agent.return_scale, "max_steps": max_steps}
    asked = [max(data["returns"])]
    return evaluate_targets(agent.policy, arena, asked, episodes=episodes, seed=seed, **options).asked[0].evaluation


@contextmanager
def watch(agent: Agent, folder: Path, total: int) -> Iterator[Hook]:
    """The watchdog of a run, as often as its `evaluations` says; a hook that does nothing where it cannot evaluate."""
    count, id = agent.run.get("evaluations", 0), agent.env_spec["id"]
    if not count or id is None:
        yield Hook()
        return
    share = agent.run.get("evaluation_share", SHARE)
    watchdog = Watchdog(agent, folder, count=count, share=share, total=total)
    try:
        yield watchdog
    finally:
        watchdog.close()


def read_best(folder: Path) -> Score | None:
    """The score of the policy kept in `folder`/best; None where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if not (folder / BEST / LEARNER).exists():
        return None
    found: dict[str, Any] | None = read_header(folder / BEST, LEARNER)["run"].get("best")
    return None if found is None else Score(**found)
