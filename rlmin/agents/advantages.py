"""Advantages and value targets of a rollout, whatever the unit of the rewards."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from rlmin.agents.ppo_config import PPOConfig
from rlmin.distributed import ALONE, Ranks
from rlmin.learning.returns import discounted_return, gae
from rlmin.policy.heads import ValueHead
from rlmin.policy.normalize import RunningNorm

if TYPE_CHECKING:
    from tensordict import TensorDict

SMALLEST_SPREAD = 0.1
"""Advantages are divided by their deviation, or by this share of the targets' deviation if that is larger."""

SMALLEST_SCALE = 1e-4
"""Smallest deviation of the targets, relative to their mean: float32 has seven digits."""

LARGE_REWARD = 1e6
"""Rewards of this size and more, not the learning rate, are blamed for an infinite loss."""

TOO_MANY, TOO_FAR = 0.01, 2
"""A value this many times beyond the possible is reported: smaller excesses are ordinary errors."""


class Kept(NamedTuple):
    """State that an update changes beside the weights."""

    statistics: dict[str, Tensor]
    head: dict[str, Tensor]
    discounted: Tensor


class Advantages(nn.Module):
    """The advantage of every action and the target of every value, which PPO learns from.

    Buffers are statistics of all rollouts so far. They are saved with the learner.

    Args:
        config: gamma, lam and the switches of normalisation.
        ranks: those whose rollouts are one; statistics are of all their rows.
    """

    discounted: Tensor
    largest_reward: Tensor

    def __init__(self, config: PPOConfig, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.config, self.ranks = config, ranks
        self.facts: list[Tensor] = []  # of the last rollout, for `check`
        self.return_norm, self.value_norm = RunningNorm(()), RunningNorm(())
        self.register_buffer("largest_reward", torch.zeros(()))
        self.register_buffer("discounted", torch.zeros(0), persistent=False)  # [B] return so far of running episodes

    def begin(self, num_envs: int) -> None:
        """New episodes in B environments; the statistics stay."""
        self.discounted = self.discounted.new_zeros(num_envs)

    @torch.no_grad()
    def forward(self, batch: "TensorDict", head: ValueHead, *, filler: bool = True) -> "TensorDict":
        """The rollout [T, B] with "advantage" and "target" (of the value) added.

        Nothing here waits for a GPU, unless there are filler rows: `facts` say what is wrong, and `check` reads them.

        Args:
            batch: a rollout, see `rlmin.learning.rollout.Rollout`.
            head: gets the unit of the targets.
            filler: whether there may be filler rows.
        """
        config, real = self.config, ~batch["filler"] if filler else None
        reward = (
            self._scale_reward(batch["reward"], batch["start"], real) if config.normalize_return else batch["reward"]
        )
        value, next_value = self._bound(reward, batch["value"], batch["next_value"])
        ends = (batch["terminated"], batch["truncated"])
        advantage = gae(reward, value, next_value, *ends, gamma=config.gamma, lam=config.lam)
        target = advantage + value
        self.facts = [torch.isfinite(target).all().to(target.dtype), reward.abs().max(), *self.facts]
        kept = _keep(target, real)
        _, spread = self.ranks.mean_and_std(kept)
        if config.normalize_value:
            spread = self._rescale(head, kept)
        if config.normalize_advantage and self._count(kept, real) > 1:
            advantage = self._normalise(advantage, _keep(advantage, real), SMALLEST_SPREAD * spread)
        return batch.clone(recurse=False).update({"advantage": advantage, "target": target})

    def check(self, facts: Sequence[float]) -> None:
        """Raise or warn of what is wrong with the last rollout, given the values of `facts`.

        Raises:
            FloatingPointError: a target is NaN or infinite.
        """
        finite, largest, *bounds = facts[: len(self.facts)]
        if bounds and bounds[0] > TOO_MANY:
            share, bound, reward = bounds
            warnings.warn(
                f"the value of {share:.0%} of the steps is far beyond {bound:.3g}, the most that rewards up to "
                f"{reward:.3g} can add up to; it is clipped there. Training is unstable: try a smaller lr",
                stacklevel=2,
            )
        if not finite:
            message = f"advantage: expected finite numbers, got NaN or infinity; the largest reward is {largest:g}"
            raise FloatingPointError(message)

    def _count(self, kept: Tensor, real: Tensor | None) -> int:
        """Rows of all ranks that are no filler."""
        if real is None:
            return kept.numel() * self.ranks.size
        return int(self.ranks.sum(real.sum()))

    def keep(self, head: ValueHead) -> Kept:
        """Copies of the statistics and of `head`, for `give_back`."""
        own, theirs = ({n: x.clone() for n, x in part.state_dict().items()} for part in (self, head))
        return Kept(own, theirs, self.discounted)

    def give_back(self, kept: Kept, head: ValueHead) -> None:
        """Undo a `forward` after which no gradient step was taken: `kept` is what `keep` returned before it."""
        self.discounted = kept.discounted
        self.load_state_dict(kept.statistics)
        head.load_state_dict(kept.head)

    def _scale_reward(self, reward: Tensor, start: Tensor, real: Tensor | None) -> Tensor:
        """Rewards in units of the deviation of the discounted return so far."""
        sums, last = discounted_return(reward, start, self.discounted, gamma=self.config.gamma)
        self.discounted = last
        self.return_norm.update(_keep(sums, real), self.ranks)
        scale = self.return_norm.var.sqrt().to(reward.dtype)
        return (reward / scale.clamp(min=torch.finfo(reward.dtype).tiny)).clamp(-10, 10)

    def _bound(self, reward: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """Values, clipped at the largest return that the rewards seen so far allow.

            |value| <= max |reward| / (1 - gamma)

        A value beyond it is wrong for any policy. Bootstrapping would make it the next target, and it would grow.
        """
        torch.maximum(self.largest_reward, self.ranks.max(reward.abs().max()), out=self.largest_reward)
        self.facts = []
        if self.config.gamma == 1:
            return values
        bound = self.largest_reward / (1 - self.config.gamma)
        share = self.ranks.sum((values[0].abs() > TOO_FAR * bound).float().mean()) / self.ranks.size
        self.facts = [share, bound, self.largest_reward.clone()]
        return tuple(value.clamp(-bound, bound) for value in values)

    def _rescale(self, head: ValueHead, target: Tensor) -> Tensor:
        """Give `head` the unit of all targets [N] so far; returns their deviation.

        Old targets are never forgotten. The targets of a solved task hardly vary, and noise must not become the unit.
        """
        self.value_norm.update(target, self.ranks)
        mean = self.value_norm.mean
        spread = torch.maximum(self.value_norm.var.sqrt(), SMALLEST_SCALE * mean.abs())
        head.rescale(mean, torch.where(spread > 0, spread, 1.0))  # 0: nothing but zeros so far
        return head.scale

    def _normalise(self, advantage: Tensor, kept: Tensor, smallest: Tensor) -> Tensor:
        """(advantage - mean) / max(deviation, smallest), mean and deviation over `kept`.

        If the value explains all but a hundredth of the targets' variance, the rest is noise. Divided by its own
        deviation it would be as large as a signal, and destroy a solved policy.
        """
        mean, std = self.ranks.mean_and_std(kept)
        scale = torch.maximum(std, smallest).clamp(min=torch.finfo(kept.dtype).tiny)
        return (advantage - mean) / scale


def _keep(x: Tensor, real: Tensor | None) -> Tensor:
    """The entries of `x` [T, B] that are `real`, [N]; all of them if that is None."""
    return x.flatten() if real is None else x[real]


def blame(error: str, reward: Tensor, *, first_row: int = 0) -> str:
    """The message of an infinite loss, with the reward [T, B] behind it if one is that large.

    Row 0 is environment `first_row`.
    """
    row = int(reward.abs().argmax())
    largest, (t, b) = float(reward.flatten()[row]), divmod(row, reward.shape[1])
    if abs(largest) < LARGE_REWARD:
        return error
    where = f"a reward of {largest:g}, from environment {first_row + b} at step {t} of the rollout"
    return f"{error.partition('. Try')[0]}. The cause may be {where}: scale the rewards"
