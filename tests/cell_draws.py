"""What the tests of single cells draw: sizes that all differ, starts, weights, and a comparison with gradients."""

from typing import Any

import torch
from torch import Tensor

T, B, D, H = 9, 3, 4, 6
never = torch.zeros(T, B, dtype=torch.bool)
start = never.clone()
start[[0, 4, 5, 8], [0, 1, 1, 2]] = True


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(cls: Any, **options: Any) -> Any:
    """A cell in float64, its weights so large that gates and decays reach their ends."""
    torch.manual_seed(0)
    cell = cls(D, H, **options).double()
    with torch.no_grad():
        for weight in cell.parameters():
            weight.add_(0.5 * torch.randn_like(weight))
    return cell


def assert_same(found: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    """Values and gradients."""
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    weight = random(*found.shape, seed=9)
    pair = [torch.autograd.grad((y * weight).sum(), leaves, materialize_grads=True) for y in (found, wanted)]
    torch.testing.assert_close(*pair, rtol=1e-7, atol=1e-9)
