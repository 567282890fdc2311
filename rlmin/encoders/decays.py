"""Decays: rates of forgetting, as parameters that keep their sign and their slow units."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rlmin.encoders.time_scale import inverse_softplus

Decay: TypeAlias = Literal["softplus", "exp", "stable"]
"""Rate as a function of its weight w: softplus(w); exp(w), as in S4 and LRU; stable: 1 / (w**2 + 1/2), from StableSSM,
whose slope over the square of the rate is 2 |w|, so an optimizer step cannot upset a slow unit."""


class Decays(nn.Module):
    """Rates of forgetting, one a unit: a memory keeps exp(-rate) of itself.

    Args:
        rate: [...] float, above 0: the initial rates; at most 2 for "stable".
        form: the function from weight to rate.

    Attributes:
        weight: [...] float32.

    Source of "stable": Wang and Li 2023 (arXiv:2311.14495), the continuous form with a = 1, b = 1/2.
    """

    def __init__(self, rate: Tensor, form: Decay = "softplus") -> None:
        super().__init__()
        if form not in ("softplus", "exp", "stable"):
            raise ValueError(f"decay: expected one of softplus, exp, stable, got {form!r}")
        self.form = form
        rate = rate.double()
        if form == "stable":
            weight = (1 / rate.clamp(max=1.99) - 0.5).sqrt()
        else:
            weight = inverse_softplus(rate) if form == "softplus" else rate.log()
        self.weight = nn.Parameter(weight.float())

    def forward(self) -> Tensor:
        """[...] the rates, at least 0."""
        if self.form == "stable":
            return 1 / (self.weight.square() + 0.5)
        return softplus(self.weight) if self.form == "softplus" else torch.exp(self.weight)
