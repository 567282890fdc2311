"""Running normalisers of rlmin's own: gymnasium's vector wrappers are wrong under some autoreset modes.

Statistics change only between a rollout and the next, never inside one: the policy that is trained saw exactly what
the policy that acted saw.
"""

import math

import torch
from torch import Tensor, nn

CLIP = 10.0
"""Deviations from the mean beyond which a normalised number is cut off."""


class RunningNorm(nn.Module):
    """y = clamp((x - mean) / sqrt(var + eps), -clip, clip), with mean and var of all x seen by `update`.

    Before the first update it is the identity but for the clip. Statistics are float64 buffers, saved with the weights.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...], *, clip: float = CLIP, eps: float = 1e-8) -> None:
        super().__init__()
        self.clip, self.eps = clip, eps
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """[..., *shape] -> [..., *shape], same float dtype."""
        scale = (self.var + self.eps).rsqrt()
        return ((x - self.mean.to(x.dtype)) * scale.to(x.dtype)).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Merge [N, *shape] samples into the statistics (Chan et al. 1979); N = 0 changes nothing."""
        added = x.shape[0]
        if added == 0:
            return
        x = x.double()
        self.merge(added, x.mean(0), x.var(0, correction=0))

    @torch.no_grad()
    def merge(self, added: int, mean: Tensor, var: Tensor) -> None:
        """Merge `added` > 0 samples of that mean and variance, [*shape] float64."""
        total = self.count + added
        delta = mean - self.mean
        spread = self.var * self.count + var * added + delta.square() * (self.count * added / total)
        self.mean += delta * (added / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)


class Range(nn.Module):
    """y = clamp(x, low, high), the smallest and the largest of all x seen by `update`.

    Before the first update it is the identity. Bounds are float64 buffers, saved with the weights.
    """

    low: Tensor
    high: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("low", torch.full(shape, -math.inf, dtype=torch.float64))
        self.register_buffer("high", torch.full(shape, math.inf, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """[..., *shape] -> [..., *shape], same float dtype."""
        return torch.clamp(x, self.low.to(x.dtype), self.high.to(x.dtype))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Widen the range to [N, *shape] samples; N = 0 changes nothing."""
        if len(x) == 0:
            return
        low, high = (bound.double() for bound in torch.aminmax(x, dim=0))
        self.low.copy_(torch.where(self.low.isinf(), low, torch.minimum(self.low, low)))
        self.high.copy_(torch.where(self.high.isinf(), high, torch.maximum(self.high, high)))
