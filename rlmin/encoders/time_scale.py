"""Time scales: gate biases from the number of steps that units remember."""

import math
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from rlmin.settings import Range

TimeScale = Annotated[float, Range(above=1)]
Spread: TypeAlias = tuple[TimeScale, TimeScale]
"""The shortest and the longest, in steps."""
TimeScales: TypeAlias = "tuple[float, float] | None"


SLOW = 100.0
"""Initial memory of a slow unit, as a multiple of the longest of the others."""


def spread_time_constants(size: int, time_scales: tuple[float, float], slow_units: float = 0.0) -> Tensor:
    """Memories of `size` units in steps: log-uniform from the shortest to the longest, then the slow units.

    They form a grid rather than a draw: units are exchangeable, so chance would only add gaps.

    Args:
        size: number of units, H.
        time_scales: (shortest, longest) tau in steps, 1 < shortest <= longest.
        slow_units: share of the units, rounded down, that begin `SLOW` times as slow as the longest.

    Returns:
        [H] float64 steps, ascending.

    Raises:
        ValueError: the time scales are not in that order.

    Source of slow units: Mikolov et al. 2014 (arXiv:1412.7753), units that are nearly the identity.
    """
    shortest, longest = time_scales
    if not 1 < shortest <= longest < math.inf:
        raise ValueError(f"time_scales: expected 1 < shortest <= longest (in steps), got {time_scales}")
    slow = int(slow_units * size)
    tau = torch.logspace(math.log10(shortest), math.log10(longest), size - slow, dtype=torch.float64)
    return torch.cat([tau, tau.new_full((slow,), SLOW * longest)])


def spread_bias(size: int, time_scales: tuple[float, float], slow_units: float = 0.0) -> Tensor:
    """Gate biases of `size` units with these time constants.

        sigmoid(bias) = 1 / tau,   so   bias = -log(tau - 1)

    A unit with update gate 1 / tau forgets half of what it holds in about 0.7 tau steps.

    Args:
        size, time_scales, slow_units: of `spread_time_constants`; a shortest of 1 itself would be an infinite bias.

    Returns:
        [H] float32 biases, descending (short memories first).

    Raises:
        ValueError: see `spread_time_constants`.
    """
    return -torch.log(spread_time_constants(size, time_scales, slow_units) - 1).float()


def inverse_softplus(x: Tensor) -> Tensor:
    """The bias at which softplus is x, x > 0."""
    return x + torch.log(-torch.expm1(-x))
