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


def spread_bias(size: int, time_scales: tuple[float, float]) -> Tensor:
    """Gate biases of `size` units whose time scales are log-uniform from the shortest to the longest.

        sigmoid(bias) = 1 / tau,   so   bias = -log(tau - 1)

    A unit with update gate 1 / tau forgets half of what it holds in about 0.7 tau steps. A grid and not a draw:
    units are exchangeable, so chance would add only gaps.

    Args:
        size: number of units, H.
        time_scales: (shortest, longest) tau in steps, 1 < shortest <= longest; 1 itself would be an infinite bias.

    Returns:
        [H] float32 biases, descending (short memories first).

    Raises:
        ValueError: the two are not in that order.
    """
    shortest, longest = time_scales
    if not 1 < shortest <= longest < math.inf:
        raise ValueError(f"time_scales: expected 1 < shortest <= longest (in steps), got {time_scales}")
    tau = torch.logspace(math.log10(shortest), math.log10(longest), size, dtype=torch.float64)
    return -torch.log(tau - 1).float()
