"""Action distributions: of choices, of points, and of points that never leave their bounds."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rlmin.distributed.streams import Source, fill_exponential, fill_normal
from rlmin.kernels import choices

EDGE = 1 - 1e-6
"""Largest size of a squashed action: the inverse of tanh is finite there, and float32 can tell it from 1."""


class Distribution(ABC):
    """An action distribution over the last axis; leading axes are [B] or [T, B]."""

    @abstractmethod
    def sample(self, generator: Source = None) -> Tensor:
        """Draw an action; no gradient flows."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The most likely action; no gradient flows."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """[...] log-probability (density, for a Box) of `action`, differentiable in the parameters."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """[...] entropy in nats, differentiable in the parameters."""

    def log_prob_and_entropy(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, which may take fewer operations."""
        return self.log_prob(action), self.entropy()

    @classmethod
    @abstractmethod
    def stack(cls, steps: Sequence[Self]) -> Self:
        """The distributions of T single steps, [B] each, as one over [T, B]."""


class Categorical(Distribution):
    """K independent choices; `logits` is [..., K, n], masked entries at ILLEGAL, absent ones at PADDING."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()

    @functools.cached_property
    def log_p(self) -> Tensor:
        """[..., K, n] log-probabilities; acting needs none, so they are computed where they are asked for."""
        return self.logits.log_softmax(-1)

    def sample(self, generator: Source = None) -> Tensor:
        # argmax(logit - log E), E ~ Exp(1): one pass, and a NaN is reported by name later instead of raising here
        # (an E of exactly 0, where a backend can draw it, would choose an entry of probability 0)
        noise = fill_exponential(torch.empty_like(self.logits), generator).clamp_(min=1e-30)
        return (self.logits.detach() - noise.log_()).argmax(-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.log_p.exp() * self.log_p).sum((-2, -1))

    def log_prob_and_entropy(self, action: Tensor) -> tuple[Tensor, Tensor]:
        if choices.usable(self.logits, self.logits):
            return choices.choice_terms(self.logits, action)
        return super().log_prob_and_entropy(action)

    @classmethod
    def stack(cls, steps: Sequence[Self]) -> Self:
        return cls(torch.stack([step.logits for step in steps]))


class Gaussian(Distribution):
    """Independent normals; `mean` is [..., A], `log_std` is [A]."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean.float() if mean.dtype != torch.float64 else mean
        self.log_std = log_std

    def sample(self, generator: Source = None) -> Tensor:
        noise = fill_normal(torch.empty_like(self.mean), generator)
        return torch.addcmul(self.mean, noise, self.log_std.exp()).detach()

    def mode(self) -> Tensor:
        return self.mean.detach()

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        per_axis = self.log_std + 0.5 * (1 + math.log(2 * math.pi))
        return per_axis.sum().expand(self.mean.shape[:-1])

    @classmethod
    def stack(cls, steps: Sequence[Self]) -> Self:
        return cls(torch.stack([step.mean for step in steps]), steps[0].log_std)


class SquashedGaussian(Gaussian):
    """The tanh of independent normals, a point inside (-1, 1); `mean` [..., A] and `log_std` [A] are before the tanh.

        action = tanh(u),  u ~ N(mean, exp(log_std)^2)
        log p(action) = log N(u) - sum over A of log(1 - tanh(u)^2)

    Source: Haarnoja et al. 2018 (arXiv:1812.05905), appendix C.
    """

    NODES, WEIGHTS = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(32))

    def sample(self, generator: Source = None) -> Tensor:
        return super().sample(generator).tanh_().clamp_(-EDGE, EDGE)

    def mode(self) -> Tensor:
        """[..., A] tanh(mean): the median, which SAC and stable-baselines3 also take for the most likely action."""
        return super().mode().tanh()

    def log_prob(self, action: Tensor) -> Tensor:
        u = torch.atanh(action.to(self.mean.dtype).clamp(-EDGE, EDGE))
        return super().log_prob(u) - log_slope(u).sum(-1)

    def entropy(self) -> Tensor:
        """H(u) + E[log(1 - tanh(u)^2)], the expectation by Gauss-Hermite quadrature: no noise, nothing to draw."""
        nodes, weights = (x.to(self.mean) for x in (self.NODES, self.WEIGHTS / math.sqrt(2 * math.pi)))
        u = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        return super().entropy() + (log_slope(u) * weights).sum((-2, -1))


def log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), exact where tanh(u) rounds to 1: there it is about 2 log 2 - 2 |u|."""
    return 2 * (math.log(2) - u.abs() - torch.nn.functional.softplus(-2 * u.abs()))
