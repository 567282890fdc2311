"""The norm inside cells."""

import torch
from torch import Tensor, nn


class RootMeanSquare(nn.Module):
    """nn.RMSNorm without a node named mean: beside an nn.LayerNorm, the ONNX exporter would write an invalid file."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] at a root mean square of 1, times `weight`."""
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / x.shape[-1] + 1e-5) * self.weight
