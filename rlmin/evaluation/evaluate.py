"""Evaluation: whole episodes of a policy in many environments at once, memory wiped where they start."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np

from rlmin.evaluation.play import LONGEST, PolicyActor, RandomActor, play_episodes
from rlmin.policy import Policy
from rlmin.policy.fit import check_spaces
from rlmin.settings import Count, Seed
from rlmin.settings.boundary import checked
from rlmin.vector import Vector
from rlmin.vector.episodes import Episode


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of E episodes."""

    returns: np.ndarray  # [E] float, sum of rewards, env units
    lengths: np.ndarray  # [E] int, steps
    successes: np.ndarray | None  # [E] bool, if the env reports success

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> Self:
        """The results of these episodes."""
        outcomes = [episode.success for episode in episodes]  # None: before the first reported success, so a failure
        return cls(
            returns=np.array([episode.return_ for episode in episodes]),
            lengths=np.array([episode.length for episode in episodes]),
            successes=np.array(outcomes, dtype=bool) if any(one is not None for one in outcomes) else None,
        )

    @property
    def mean_return(self) -> float:
        """Mean over all episodes."""
        return float(self.returns.mean())

    @property
    def return_error(self) -> float:
        """Standard error of the mean return; nan for a single episode."""
        E = len(self.returns)
        return float(self.returns.std(ddof=1) / E**0.5) if E > 1 else float("nan")

    @property
    def success_rate(self) -> float | None:
        """Share of successful episodes; None if the env does not report it."""
        return None if self.successes is None else float(self.successes.mean())

    def return_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval (percentile, 10,000 draws, fixed seed) of the mean return."""
        if len(self.returns) < 2 or float(np.ptp(self.returns)) == 0:
            return self.mean_return, self.mean_return
        random = np.random.default_rng(0)  # in parts: 10,000 draws of many episodes at once would fill the memory
        draws = np.concatenate([random.choice(self.returns, (100, len(self.returns))).mean(1) for _ in range(100)])
        tail = (1 - confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return float(low), float(high)

    def success_interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Wilson interval of the success rate; None if the env does not report it."""
        if self.successes is None:
            return None
        from scipy.stats import binomtest

        found = binomtest(int(self.successes.sum()), len(self.successes))
        interval = found.proportion_ci(confidence, method="wilson")
        return float(interval.low), float(interval.high)

    def __str__(self) -> str:
        low, high = self.return_interval()
        text = f"return {self.mean_return:.3f} [{low:.3f}, {high:.3f}]"
        interval = self.success_interval()
        if interval is not None:
            rate, low, high = (100 * x for x in (self.success_rate or 0.0, *interval))
            text += f"  success {rate:.1f} % [{low:.1f}, {high:.1f}]"
        return text + f"  length {self.lengths.mean():.1f}  ({len(self.returns)} episodes, 95 % intervals)"


@checked
def evaluate(
    policy: Policy,
    vector: Vector,
    *,
    episodes: Count = 200,
    deterministic: bool = True,
    seed: Seed | None = 0,
    max_steps: Count = LONGEST,
) -> Evaluation:
    """Play whole episodes.

    Every environment plays the same number of episodes, or one less, settled beforehand: short ones count no more.

    Args:
        policy: acts; nothing is trained.
        vector: environments with the policy's spaces.
        episodes: E, as many as are played.
        deterministic: the most likely action instead of a sample.
        seed: of the environments and of sampled actions; None draws both anew.
        max_steps: largest length of an episode.

    Raises:
        ValueError: `episodes` is not positive, the spaces differ from the policy's, or an episode does not end.
    """
    check_spaces(policy, vector)
    actor = PolicyActor(policy, vector.num_envs, deterministic=deterministic, seed=seed)
    quota = share(episodes, vector.num_envs)
    played = play_episodes(vector, actor, quota=quota, seed=seed, max_steps=max_steps)
    return Evaluation.of(list(chain.from_iterable(played)))


@checked
def evaluate_random(
    vector: Vector, *, episodes: Count, seed: Seed | None = 0, max_steps: Count = LONGEST
) -> Evaluation:
    """As `evaluate`, for a policy that takes every legal action with equal chance."""
    actor = RandomActor(vector.action_space, vector.num_envs, seed=seed)
    quota = share(episodes, vector.num_envs)
    played = play_episodes(vector, actor, quota=quota, seed=seed, max_steps=max_steps)
    return Evaluation.of(list(chain.from_iterable(played)))


def share(episodes: int, rows: int) -> list[int]:
    """How many episodes each of `rows` environments plays, so that there are `episodes` in all.

    Raises:
        ValueError: `episodes` is not positive.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}")
    return [episodes // rows + (row < episodes % rows) for row in range(rows)]
