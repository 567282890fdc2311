"""Playing: an actor chooses the actions of B environments, whose steps come as a stream of records.

An actor maps the record of the last step to the next action, and keeps its own memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import gymnasium as gym
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlmin.policy import Policy
from rlmin.policy.heads import ChoiceHead, action_head
from rlmin.types import Step
from rlmin.vector import Vector
from rlmin.vector.episodes import Episode, EpisodeStatistics

Actor: TypeAlias = Callable[[Step], Tensor]
"""The last step, [B] rows, -> actions [B, ...] in the environment's own form. New for every `play`."""

LONGEST = 100_000
"""Steps after which an episode counts as endless."""


class PolicyActor:
    """A policy with its memory, its last action and its own random numbers."""

    def __init__(self, policy: Policy, rows: int, *, deterministic: bool = True, seed: int | None = 0) -> None:
        """Args: rows: B. deterministic: the most likely action instead of a sample. seed: of samples; None: any."""
        self.policy, self.deterministic = policy, deterministic
        self.generator = torch.Generator(next(policy.parameters()).device)
        self.generator.manual_seed(self.generator.seed() if seed is None else seed)
        self.state, self.action = policy.initial_state(rows), policy.no_action(rows)

    @torch.no_grad()
    def __call__(self, step: Step) -> Tensor:
        observation = self.policy.with_previous(step.observation, self.action, step.reward)
        out = self.policy.step(observation, self.state, step.start, step.action_mask)
        self.state = out.state
        self.action = out.distribution.mode() if self.deterministic else out.distribution.sample(self.generator)
        return self.policy.action_head.to_env(self.action)


class RandomActor:
    """Every legal action with equal chance; for a Box, its `sample`."""

    def __init__(self, action_space: gym.Space[object], rows: int, *, seed: int | None = 0) -> None:
        """Args: action_space: of one environment. rows: B. seed: None for any."""
        self.head, self.rows = action_head(action_space, 1), rows
        self.generator = torch.Generator()
        self.generator.manual_seed(self.generator.seed() if seed is None else seed)
        self.space = batch_space(action_space, rows)
        self.space.seed(seed)

    @torch.no_grad()
    def __call__(self, step: Step) -> Tensor:
        if not isinstance(self.head, ChoiceHead):
            return torch.as_tensor(self.space.sample(), device=step.reward.device)
        mask = None if step.action_mask is None else step.action_mask.cpu()
        nothing = torch.zeros(self.rows, 1)  # features of zero: all legal choices are equally likely
        return self.head.to_env(self.head(nothing, mask).sample(self.generator)).to(step.reward.device)


def play(vector: Vector, actor: Actor, *, seed: int | None = 0, max_steps: int = LONGEST) -> Iterator[Step]:
    """Reset, then step for ever; the caller decides when to stop.

    Args:
        vector: B environments.
        actor: for these B environments.
        seed: of the environments; None draws anew.
        max_steps: largest length of an episode.

    Yields:
        the record of the reset, then that of every step.

    Raises:
        ValueError: an episode does not end.
    """
    step = vector.reset(seed=seed)
    length = torch.zeros(vector.num_envs, dtype=torch.int64, device=step.reward.device)
    while True:
        yield step
        length = (length + 1) * ~(step.start | step.terminated | step.truncated)
        if int(length.max()) >= max_steps:
            raise ValueError(
                f"environment {int(length.argmax())} has not ended its episode after {max_steps:,} steps; "
                "set a time limit (max_episode_steps=...), or raise max_steps if it is meant to last"
            )
        step = vector.step(actor(step))


def play_episodes(
    vector: Vector, actor: Actor, *, quota: Sequence[int], seed: int | None = 0, max_steps: int = LONGEST
) -> list[list[Episode]]:
    """The first episodes of every environment, as many as was settled beforehand: so short ones count no more.

    Args:
        vector, actor, seed, max_steps: see `play`.
        quota: [B] episodes of each environment.

    Returns:
        [B] lists of episodes.

    Raises:
        ValueError: see `play`.
    """
    statistics = EpisodeStatistics(vector.num_envs)
    played: list[list[Episode]] = [[] for _ in range(vector.num_envs)]
    for step in play(vector, actor, seed=seed, max_steps=max_steps):
        ended = ((step.terminated | step.truncated) & ~step.filler).nonzero().squeeze(-1).tolist()
        for row, episode in zip(ended, statistics.update(step), strict=True):
            if len(played[row]) < quota[row]:
                played[row].append(episode)
        if ended and [len(episodes) for episodes in played] == list(quota):
            break
    return played
