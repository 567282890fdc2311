"""Running normalisers of rlmin's own: gymnasium's vector wrappers are wrong under some autoreset modes.

Statistics change only between a rollout and the next, never inside one: the policy that is trained saw exactly what
the policy that acted saw.
"""

import math

import torch
from torch import Tensor, nn

from rlmin.distributed import ALONE, Moments, Ranks

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
    def update(self, x: Tensor, ranks: Ranks = ALONE) -> None:
        """Merge the [N, *shape] samples of all ranks into the statistics; N = 0 changes nothing."""
        self.merge(ranks.moments(x))

    @torch.no_grad()
    def merge(self, found: Moments) -> None:
        """Merge samples of these moments, [*shape] each (Chan et al. 1979)."""
        added, mean, var = found
        if added == 0:
            return
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
    def update(self, x: Tensor, ranks: Ranks = ALONE) -> None:
        """Widen the range to the [N, *shape] samples of all ranks; N = 0 changes nothing."""
        x = ranks.gather(torch.stack([*torch.aminmax(x, dim=0)]) if len(x) else x)
        if len(x) == 0:
            return
        low, high = (bound.double() for bound in torch.aminmax(x, dim=0))
        self.low.copy_(torch.where(self.low.isinf(), low, torch.minimum(self.low, low)))
        self.high.copy_(torch.where(self.high.isinf(), high, torch.maximum(self.high, high)))
