"""Ways in which the weights of a module change after its first call."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def optimise(module: Module) -> Module:
    """A step of an optimizer, in place."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    numbers = torch.Generator().manual_seed(7)
    for weight in module.parameters():
        weight.grad = torch.randn(weight.shape, generator=numbers, dtype=weight.dtype)
    optimizer.step()
    return module


def load(module: Module) -> Module:
    """Other weights are copied into the same tensors."""
    module.load_state_dict(optimise(deepcopy(module)).state_dict())
    return module


def assign(module: Module) -> Module:
    """Other tensors become the weights."""
    module.load_state_dict(optimise(deepcopy(module)).state_dict(), assign=True)
    return module


def convert_and_back(module: Module) -> Module:
    """The weights move to another precision and back."""
    return optimise(module.float().double())


def copy_and_optimise(module: Module) -> Module:
    """A copy has other weights than the original."""
    return optimise(deepcopy(module))


CHANGES = (optimise, load, assign, convert_and_back, copy_and_optimise)
