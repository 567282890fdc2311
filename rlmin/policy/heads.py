"""Heads: features -> action distribution, and features -> value.

Inside rlmin an action is one of two things:

    choices  int64 [..., K], one index into each of K small sets: Discrete (K=1), MultiDiscrete, MultiBinary
    a point  float32 [..., A], for Box

`ActionHead.to_env` turns it into what the environment expects, `from_env` turns it back.

A Box that is bounded on both sides is scaled so that [low, high] becomes [-1, 1]; the Gaussian lives in that unit,
its log-probability is that of the unclipped sample, and `to_env` clips the action at the bounds (as stable-baselines3
does: the density is simple, and mass beyond a bound means "at the bound"). Unbounded sides keep the env's unit.
Squashed, the action is the tanh of the Gaussian's sample and its log-probability that of the tanh; no mass lies beyond.
"""

from abc import ABC, abstractmethod

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlmin.policy.distributions import Categorical as Categorical
from rlmin.policy.distributions import Distribution as Distribution
from rlmin.policy.distributions import Gaussian as Gaussian
from rlmin.policy.distributions import SquashedGaussian as SquashedGaussian

ILLEGAL = -1e8
"""Logit of a masked choice: exp() of it is exactly 0, and 0 * log-probability stays 0 where -inf would give NaN."""
PADDING = 2 * ILLEGAL
"""Logit of a choice that does not exist: never taken, not even where a mask allows nothing at all."""

UNBOUNDED = 1e30
"""Width from which on a Box counts as unbounded: some environments write the largest float for "no bound"."""


class ActionHead(nn.Module, ABC):
    """features [..., H] -> Distribution, and the two-way translation between rlmin's actions and the env's."""

    event_shape: tuple[int, ...]  # shape of one action inside rlmin
    dtype: torch.dtype
    mask_size: int  # number of entries an action mask must have; 0: masks make no sense here
    projection: nn.Linear

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Distribution:
        """Distribution of the action given features [..., H]; mask: [..., mask_size] bool, True is legal."""
        return self.distribution(self.projection(features), mask)

    @abstractmethod
    def distribution(self, projected: Tensor, mask: Tensor | None = None) -> Distribution:
        """As `forward`, given the output of `projection`."""

    @abstractmethod
    def to_env(self, action: Tensor) -> Tensor:
        """[B, *event_shape] -> [B, *space.shape] in the env's own numbers."""

    @abstractmethod
    def from_env(self, action: Tensor) -> Tensor:
        """The inverse of `to_env` for actions inside the bounds."""


class ChoiceHead(ActionHead):
    """Discrete, MultiDiscrete and MultiBinary: K choices of sizes n[0..K-1], padded to the largest.

    An action mask holds one flag for each value of each choice, choice after choice: n[0] + ... + n[K-1] in all.
    Where a mask forbids every value of a choice, all of them are equally likely.
    """

    def __init__(
        self, space: gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary, features: int
    ) -> None:
        super().__init__()
        sizes = choice_sizes(space)
        starts = np.zeros(len(sizes)) if isinstance(space, gym.spaces.MultiBinary) else np.ravel(space.start)
        self.env_shape = tuple(space.shape or ())
        self.event_shape = (len(sizes),)
        self.dtype = torch.int64
        self.mask_size = int(sizes.sum())
        self.sizes = tuple(int(n) for n in sizes)
        self.widest = max(self.sizes)
        self.projection = nn.Linear(features, self.mask_size)
        self.register_buffer("first", torch.as_tensor(starts, dtype=torch.int64), persistent=False)
        slots = [k * self.widest + i for k, n in enumerate(self.sizes) for i in range(n)]
        self.register_buffer("slots", torch.as_tensor(slots), persistent=False)
        nn.init.orthogonal_(self.projection.weight, 0.01)
        nn.init.zeros_(self.projection.bias)

    first: Tensor
    slots: Tensor

    def distribution(self, projected: Tensor, mask: Tensor | None = None) -> Categorical:
        logits = projected
        if mask is not None:
            if mask.shape[-1] != self.mask_size:
                raise ValueError(f"action mask: expected {self.mask_size} flags, got {mask.shape[-1]}")
            logits = logits.masked_fill(~mask, ILLEGAL)
        shape = (*logits.shape[:-1], len(self.sizes), self.widest)
        if self.mask_size != len(self.sizes) * self.widest:
            padded = logits.new_full((*shape[:-2], len(self.sizes) * self.widest), PADDING)
            logits = padded.index_copy(-1, self.slots, logits)
        logits = logits.view(shape)
        if mask is not None:  # beside 1e8, where every choice may be illegal, a sample's noise would be rounded away
            logits = logits - logits.detach().amax(-1, keepdim=True)
        return Categorical(logits)

    def to_env(self, action: Tensor) -> Tensor:
        return (action + self.first).view(*action.shape[:-1], *self.env_shape)

    def from_env(self, action: Tensor) -> Tensor:
        lead = action.shape[: action.ndim - len(self.env_shape)]
        return action.to(torch.int64).reshape(*lead, len(self.sizes)) - self.first


class BoxHead(ActionHead):
    """A Gaussian whose mean is linear in the features and whose spread is one parameter an axis, or the tanh of it."""

    def __init__(self, space: gym.spaces.Box, features: int, *, log_std: float = 0.0, squash: bool = False) -> None:
        super().__init__()
        self.env_shape, self.squash = space.shape, squash
        low, high, centre, scale = box_unit(space)
        if squash and not bool((high - low < UNBOUNDED).all()):
            raise ValueError(f"squash=True: expected a Box bounded on both sides, got {space}; leave squash off")
        self.event_shape = (len(low),)
        self.dtype = torch.float32
        self.mask_size = 0
        self.projection = nn.Linear(features, len(low))
        self.log_std = nn.Parameter(torch.full((len(low),), log_std))
        for name, value in (
            ("low", inside(low, np.inf)),
            ("high", inside(high, -np.inf)),
            ("centre", centre),
            ("scale", scale),
        ):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32), persistent=False)
        nn.init.orthogonal_(self.projection.weight, 0.01)
        nn.init.zeros_(self.projection.bias)

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def distribution(self, projected: Tensor, mask: Tensor | None = None) -> Gaussian:
        return (SquashedGaussian if self.squash else Gaussian)(projected, self.log_std)

    def to_env(self, action: Tensor) -> Tensor:
        point = torch.clamp(self.centre + self.scale * action, self.low, self.high)
        return point.view(*action.shape[:-1], *self.env_shape)

    def from_env(self, action: Tensor) -> Tensor:
        lead = action.shape[: action.ndim - len(self.env_shape)]
        return (action.float().reshape(*lead, *self.event_shape) - self.centre) / self.scale


class ValueHead(nn.Module):
    """features [..., H] -> value [...], float32, in the unit of the returns.

        value = mean + scale * projection(features)

    `projection` works in a unit in which returns have mean 0 and deviation 1, so that a gradient step is as large for
    returns of 1e4 as for returns of 1e-4. It starts at zero: values that mean nothing would be bootstrapped from.

    Source: van Hasselt et al. 2016 (arXiv:1602.07714), for `rescale`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        """Args: features: H."""
        super().__init__()
        self.projection = nn.Linear(features, 1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        value: Tensor = self.projection(features).squeeze(-1)
        return self.in_returns(value)

    def in_returns(self, projected: Tensor) -> Tensor:
        """[...] `projection`'s output, in the unit of the returns; float32, or float64 where the weights are."""
        x = projected.float() if projected.dtype in (torch.bfloat16, torch.float16) else projected
        return torch.addcmul(self.mean.to(x.dtype), x, self.scale.to(x.dtype))

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: Tensor) -> None:
        """Change the unit in which `projection` works; the values stay the same within rounding.

        The values of a head that has learned nothing become `mean`. To stay 0 they would have to be many deviations
        away from it, where returns hardly vary.

        Args:
            mean, scale: float scalars, mean and deviation (> 0) of the returns.
        """
        weight, bias = self.projection.weight, self.projection.bias
        before = self.mean.double() + self.scale.double() * bias.double()
        mean, scale = mean.to(self.mean.dtype), scale.to(self.scale.dtype)
        learned = weight.any() | bias.any()
        weight.mul_(self.scale / scale)
        bias.copy_(torch.where(learned, (before - mean.double()) / scale.double(), 0.0))
        self.mean.copy_(mean)
        self.scale.copy_(scale)


def action_head(space: gym.Space[object], features: int, *, log_std: float = 0.0, squash: bool = False) -> ActionHead:
    """The head for an action space.

    Args:
        space: Discrete (any start), MultiDiscrete, MultiBinary or Box, of a single environment.
        features: H, size of the features it reads.
        log_std: of a Box: log of the Gaussian's deviation before training, where [low, high] is [-1, 1].
        squash: of a Box: the action is the tanh of the Gaussian's sample.

    Raises:
        ValueError: any other space, or `squash` for one that is not a Box with bounds.
    """
    if squash and not isinstance(space, gym.spaces.Box):
        raise ValueError(f"squash=True: expected a Box bounded on both sides, got {space}; leave squash off")
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return ChoiceHead(space, features)
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return BoxHead(space, features, log_std=log_std, squash=squash)
    raise ValueError(
        f"action space: expected Discrete, MultiDiscrete, MultiBinary or a float Box, got {space}; "
        "a Dict or Tuple of actions can be flattened by a gymnasium wrapper"
    )


def box_unit(space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """low, high, centre and scale [A] float64 of a Box of points: (action - centre) / scale is the Gaussian's unit."""
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    with np.errstate(over="ignore"):
        bounded = high - low < UNBOUNDED
    bottom, top = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)  # what becomes [-1, 1]
    return low, high, (bottom + top) / 2, np.where(top > bottom, (top - bottom) / 2, 1.0)


def inside(bound: np.ndarray, other_side: float) -> np.ndarray:
    """The float32 nearest to `bound` that does not lie beyond it, seen from `other_side` (inf or -inf)."""
    with np.errstate(over="ignore"):
        rounded = bound.astype(np.float32)
    beyond = rounded < bound if other_side > 0 else rounded > bound
    return np.where(beyond, np.nextafter(rounded, np.float32(other_side)), rounded)


def choice_sizes(space: gym.Space[object]) -> np.ndarray:
    """Sizes of the choices that a Discrete, MultiDiscrete or MultiBinary space is made of, flattened."""
    if isinstance(space, gym.spaces.Discrete):
        return np.array([space.n])
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.nvec.reshape(-1).astype(np.int64)
    if isinstance(space, gym.spaces.MultiBinary):
        return np.full(int(np.prod(space.shape)), 2)
    raise ValueError(f"expected Discrete, MultiDiscrete or MultiBinary, got {space}")
