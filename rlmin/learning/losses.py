"""Losses: pure functions of tensors. Means are over the rows with weight 1, so filler rows have no influence.

A `weight` of None keeps every row, and is faster than a tensor of ones.
"""

import math

import torch
from torch import Tensor

from rlmin.checks import check_alike
from rlmin.distributed import ALONE, Ranks
from rlmin.settings import Positive
from rlmin.settings.boundary import checked


@checked
def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """sum(weight x) / sum(weight) over all entries; 0 if nothing is kept. Shapes equal, weight in {0, 1}.

    Entries of weight 0 are left out, not multiplied: there `x` may be infinite or NaN, and its gradient is exactly 0.
    """
    check_alike(x=x, weight=weight)
    if weight is None:
        return x.mean()
    return (_mask_filler(x, weight) * weight).sum() / weight.sum().clamp(min=1)


@checked
def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, weight: Tensor | None, *, clip: Positive
) -> Tensor:
    """PPO's policy loss.

        ratio = exp(log_prob - old_log_prob)
        loss  = -mean(min(ratio A, clamp(ratio, 1 - clip, 1 + clip) A))

    Args:
        log_prob: log-probability of the action now; gradient flows here only.
        old_log_prob, advantage: same shape, constants from the rollout.
        weight: same shape, float 1 for real rows and 0 for filler; None: all rows are real.
        clip: scalar > 0.

    Returns:
        scalar. Its slope is zero where the ratio has left the interval in the direction of the advantage.

    Source: Schulman et al. 2017, eq. 7 (arXiv:1707.06347).
    """
    check_alike(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage, weight=weight)
    ratio = _mask_filler(log_prob - old_log_prob, weight).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -weighted_mean(gain, weight)


@checked
def ratio_penalty(log_prob: Tensor, old_log_prob: Tensor, weight: Tensor | None, *, clip: Positive) -> Tensor:
    """Penalty on steps whose probability ratio has left the trusted region around the rollout.

        excess = max(|log_prob - old_log_prob| - log(1 + clip), 0)
        loss   = 1/2 mean(excess^2)

    The clip of `clipped_surrogate` removes the slope of a step that has gone far enough. It does not bring back
    a step that was moved along with others, and if one step of an episode decides, a mean over all steps hides it.

    Args:
        log_prob: log-probability of the action now; gradient flows here only.
        old_log_prob: same shape, constants from the rollout.
        weight: same shape, float 1 for real rows and 0 for filler; None: all rows are real.
        clip: scalar > 0, free distance of the probability ratio from 1.

    Returns:
        scalar, in nats squared. Its slope is zero inside the region, for any advantage.
    """
    check_alike(log_prob=log_prob, old_log_prob=old_log_prob, weight=weight)
    excess = (_mask_filler(log_prob - old_log_prob, weight).abs() - math.log1p(clip)).clamp(min=0)
    return 0.5 * weighted_mean(excess.square(), weight)


@checked
def value_loss(
    value: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    old_value: Tensor | None = None,
    clip: Positive | None = None,
) -> Tensor:
    """Half the mean squared error; with `clip`, the larger of that and the error of a value held near the old one.

        v'   = old_value + clamp(value - old_value, -clip, clip)
        loss = 1/2 mean(max((value - target)^2, (v' - target)^2))

    Args:
        value: any shape; gradient flows here only. target, weight, old_value: same shape, constants.
        clip: scalar > 0 in the unit of `value`, or None for the plain error.

    Returns:
        scalar.
    """
    check_alike(value=value, target=target, weight=weight, old_value=old_value)
    error = _mask_filler(value - target, weight).square()
    if clip is not None and old_value is not None:
        held = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.maximum(error, _mask_filler(held - target, weight).square())
    return 0.5 * weighted_mean(error, weight)


@torch.no_grad()
@checked
def step_kl(log_prob: Tensor, old_log_prob: Tensor, weight: Tensor | None) -> Tensor:
    """KL(old || new) of every step, estimated by (ratio - 1) - log ratio: never negative, low variance; 0 for filler.

    Source: Schulman 2020, "Approximating KL divergence", estimator k3.
    """
    check_alike(log_prob=log_prob, old_log_prob=old_log_prob, weight=weight)
    log_ratio = _mask_filler(log_prob - old_log_prob, weight)
    return log_ratio.expm1() - log_ratio  # expm1: exp(x) - 1 loses all digits near 0


@torch.no_grad()
@checked
def approximate_kl(log_prob: Tensor, old_log_prob: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of `step_kl` over kept rows. No gradient."""
    check_alike(log_prob=log_prob, old_log_prob=old_log_prob, weight=weight)
    return weighted_mean(step_kl(log_prob, old_log_prob, weight), weight)


@torch.no_grad()
@checked
def explained_variance(value: Tensor, target: Tensor, weight: Tensor | None, ranks: Ranks = ALONE) -> Tensor:
    """1 - Var(target - value) / Var(target) over kept rows of all ranks: 1 is perfect, 0 no better than a constant.

    A scalar; NaN if no row is kept. The variance of the target is at least 1e-8. Where `weight` is None nothing waits
    for a GPU.
    """
    check_alike(value=value, target=target, weight=weight)
    keep = None if weight is None else weight.bool()
    if not ranks.is_alone:
        both = torch.stack([target - value, target], -1)
        count, _, (unexplained, whole) = ranks.moments(both.reshape(-1, 2) if keep is None else both[keep])
        return 1 - unexplained / whole.clamp(min=1e-8) if count else target.new_full((), torch.nan)
    if target.numel() == 0 or (keep is not None and not bool(keep.any())):
        return target.new_full((), torch.nan)
    target, error = (x.flatten() if keep is None else x[keep] for x in (target, target - value))
    return 1 - error.var(correction=0) / target.var(correction=0).clamp(min=1e-8)


def _mask_filler(x: Tensor, weight: Tensor | None) -> Tensor:
    """`x`, 0 where `weight` is 0. It comes before exp() and squares, since filler may be large and inf * 0 is NaN."""
    return x if weight is None else x.masked_fill(weight == 0, 0)
