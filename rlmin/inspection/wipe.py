"""Wiping the memory: its effect on the next action, and on the episode."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlmin.checks import old_names
from rlmin.evaluation.evaluate import Evaluation
from rlmin.evaluation.play import PolicyActor
from rlmin.inspection.subject import Played, Subject
from rlmin.policy import Policy
from rlmin.policy.heads import Categorical, Distribution, Gaussian
from rlmin.types import State, Step, map_state, tensors_of


class WipedActor(PolicyActor):
    """A policy whose memory is emptied `at` steps into each episode, or at every step, before it reads the observation.

    If it reads the previous action and reward, it still gets them.
    """

    def __init__(self, policy: Policy, rows: int, *, at: int | None) -> None:
        """Args: at: steps from the start of the episode; None: at each of them."""
        super().__init__(policy, rows)
        self.at, self.age = at, torch.zeros(rows, dtype=torch.int64)

    def __call__(self, step: Step) -> Tensor:
        self.age = (self.age + 1).masked_fill(step.start.cpu(), 0)
        gone = torch.ones_like(step.start) if self.at is None else (self.age == self.at).to(step.start.device)
        self.state = wipe_rows(self.state, gone)
        return super().__call__(step)


def wipe_rows(state: State, rows: Tensor) -> State:
    """`state` with zeros where `rows` [B] is set: a memory that has seen nothing."""
    return map_state(lambda x: x.masked_fill(rows.view(-1, *[1] * (x.dim() - 1)), 0), state)


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The effect of a wipe before step t on the action at t, over the steps of an episode."""

    divergence: Tensor  # [T] KL(with memory || without), nats
    kept: Tensor  # [T] probability (density, of a Box) of the action taken, with memory
    wiped: Tensor  # [T] and without


@torch.no_grad()
def measure_forgetting(policy: Policy, episode: Played) -> Forgetting:
    """Compare what the policy does at each step with what it would do there, had its memory just been emptied.

    Args:
        policy: any encoder.
        episode: of one row, [T, 1, ...].
    """
    T = len(episode)
    full = policy.unroll(episode.leaves, policy.initial_state(1), episode.start, episode.action_mask)
    alone = {name: leaf[:, 0] for name, leaf in episode.leaves.items()}  # T rows of one step each
    mask = None if episode.action_mask is None else episode.action_mask[:, 0]
    empty = policy.step(alone, policy.initial_state(T), episode.start[:, 0], mask).distribution
    before = _first_row(full.distribution)
    action = episode.action[:, 0]
    return Forgetting(
        divergence=divergence(before, empty),
        kept=before.log_prob(action).exp(),
        wiped=empty.log_prob(action).exp(),
    )


def wipe_returns(subject: Subject, at: Sequence[int], *, episodes: int) -> tuple[dict[int, Evaluation], Evaluation]:
    """Play the same episodes with the memory wiped once, at each of these steps, and with it wiped at every step.

    Returns:
        step -> the result; and the result without any memory.
    """
    policy = subject.policy
    once = {
        t: subject.evaluate(episodes, actor=lambda rows, t=t: WipedActor(policy, rows, at=t))  # type: ignore[misc]
        for t in at
    }
    return once, subject.evaluate(episodes, actor=lambda rows: WipedActor(policy, rows, at=None))


def divergence(p: Distribution, q: Distribution) -> Tensor:
    """[...] KL(p || q) in nats, of two distributions of one head."""
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        return (p.log_p.exp() * (p.log_p - q.log_p)).sum((-2, -1))
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):  # of equal deviations: they are parameters
        return 0.5 * ((p.mean - q.mean) / p.log_std.exp()).square().sum(-1)
    raise TypeError(f"expected two of a kind, got {type(p).__name__} and {type(q).__name__}")


def has_memory(policy: Policy) -> bool:
    """Whether there is anything to wipe."""
    return any(x.numel() for x in tensors_of(policy.initial_state(1)))


def _first_row(distribution: Distribution) -> Distribution:
    """[T, 1] -> [T]."""
    if isinstance(distribution, Categorical):
        return Categorical(distribution.logits[:, 0])
    if isinstance(distribution, Gaussian):
        return type(distribution)(distribution.mean[:, 0], distribution.log_std)
    raise TypeError(f"expected Categorical or Gaussian, got {type(distribution).__name__}")


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, forgetting="measure_forgetting")
