"""Floors of the forget gates that are learned, and rise from layer to layer."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from rlmin.settings import ShareBelowOne

Floor: TypeAlias = ShareBelowOne | Literal["rising"]
"""Least share of the memory that stays at a step; "rising": learned, 0 in the first layer and larger in every other."""


class RisingFloors(nn.Module):
    """Floors of all layers of a stack, a cumulative softmax over the layers.

        floor[l] = sum over k = 1..l of softmax(weight)[k]                so 0 = floor[0] < floor[1] < ... < 1

    Weights begin at zero, and the floors at l / L.

    Args:
        layers: L.
        size: H, units of a layer.

    Attributes:
        weight: [L, H].

    Source: Qin et al. 2023 (arXiv:2311.04823), section 3.2; without the first share, as in flash-linear-attention.
    """

    def __init__(self, layers: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, size))

    def forward(self, layer: int) -> Tensor:
        """[H] the floors of one layer."""
        return self.weight.softmax(0)[1 : layer + 1].sum(0)

    def first_reach(self, layer: int) -> float:
        """1 - floor of a layer before training."""
        return 1 - layer / len(self.weight)
