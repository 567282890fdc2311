"""The three candidate activations, and their slopes, in torch.

    identity    c(x) = x
    tanh        c(x) = tanh(x)
    g           c(x) = x + 0.5 where x >= 0, sigmoid(x) elsewhere: positive, continuous, slope 1 upwards

`g` is the activation of the minGRU paper (Feng et al. 2024, arXiv:2410.01201, appendix B.3).
"""

import torch
from torch import Tensor

ACTIVATIONS = ("identity", "tanh", "g")


def activate(name: str, x: Tensor) -> Tensor:
    """c(x), differentiable."""
    if name == "tanh":
        return torch.tanh(x)
    if name == "g":
        return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))
    return x


def slope(name: str, x: Tensor) -> Tensor:
    """dc/dx, differentiable."""
    if name == "tanh":
        return 1 - torch.tanh(x).square()
    if name == "g":
        return torch.where(x >= 0, torch.ones_like(x), torch.sigmoid(x) * torch.sigmoid(-x))
    return torch.ones_like(x)
