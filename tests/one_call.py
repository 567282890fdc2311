"""What the steps in one call share: changes of weights after the first call, and when modules are called instead."""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import pytest
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


def check_fallback(
    step: Callable[[], torch.Tensor], is_taken: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients, autocast or another kernel the modules are called; otherwise the one call is taken."""
    assert step().requires_grad and not is_taken()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        step()
    assert not is_taken()
    monkeypatch.setenv("RLMIN_KERNEL", "portable")
    with torch.no_grad():
        step()
        assert not is_taken()
        monkeypatch.delenv("RLMIN_KERNEL")
        step()
    assert is_taken()
