"""The loss of logged actions under a distribution."""

from typing import Literal

from torch import Tensor

from rlmin.policy.heads import Categorical, Distribution, Gaussian


def action_loss(distribution: Distribution, action: Tensor, *, of_point: Literal["mse", "nll"] = "mse") -> Tensor:
    """The loss of the logged `action`.

        loss = -log p(action)                     choices; points where of_point is "nll"
        loss = mean over A of (mean - action)^2   points, where of_point is "mse", in the unit where bounds are -1 and 1

    Args:
        distribution: over [..., K] or [..., A].
        action: [..., K] int64 or [..., A] float32, in rlmin's own form.
        of_point: "mse" trains no spread; the decision agent then takes the spread of the residuals.

    Returns:
        [...] float; gradients flow to the parameters of the distribution.
    """
    if isinstance(distribution, Gaussian) and of_point == "mse":
        return (distribution.mean - action).square().mean(-1)
    return -distribution.log_prob(action)


def accuracy(distribution: Distribution, action: Tensor) -> Tensor | None:
    """[...] float, 1 where every choice was the most likely one; None for a point."""
    if not isinstance(distribution, Categorical):
        return None
    return (distribution.mode() == action).all(-1).float()
