"""How long a unit remembers: gate biases from time scales in steps."""

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
"""How many times longer than the longest of the others a slow unit remembers at first."""


def spread_time_constants(size: int, time_scales: tuple[float, float], slow_units: float = 0.0) -> Tensor:
    """How long `size` units are to remember: log-uniform from the shortest to the longest, and slow units behind them.

    A grid and not a draw: units are exchangeable, so chance would add only gaps.

    Args:
        size: number of units, H.
        time_scales: (shortest, longest) tau in steps, 1 < shortest <= longest.
        slow_units: share of the units, rounded down, that begin `SLOW` times as slow as the longest.

    Returns:
        [H] float64 steps, ascending.

    Raises:
        ValueError: the two are not in that order.

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
