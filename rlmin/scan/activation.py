"""The three candidate activations and their slopes in torch, and the option that selects one for a scan.

    identity    c(x) = x
    tanh        c(x) = tanh(x)
    g           c(x) = x + 0.5 where x >= 0, sigmoid(x) elsewhere: positive, continuous, slope 1 upwards

`g` is the activation of the minGRU paper (Feng et al. 2024, arXiv:2410.01201, appendix B.3).
"""

import torch
from torch import Tensor

ACTIVATIONS = ("identity", "tanh", "g")

Option = str | bool
"""Selects a variant of a scan: the activation of a gated one, the direction of the linear one."""


def split_option(option: Option) -> tuple[str, bool]:
    """Activation and direction (True: backwards in time); a scan without one of them gets its default."""
    return ("identity", option) if isinstance(option, bool) else (option, False)


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
