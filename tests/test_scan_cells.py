"""The cells on `linear_scan`, each against its paper's recurrence written naively, one step and one row at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from rlmin.encoders import RGLRU
from rlmin.encoders.decays import Decays
from rlmin.encoders.time_scale import SLOW, spread_bias, time_constants

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


# -- RG-LRU: De et al. 2024, equations 1 to 4 -------------------------------------------------------------------------


def block_diagonal(blocks: Tensor) -> Tensor:
    heads, rows, columns = blocks.shape
    whole = blocks.new_zeros(heads, rows, heads, columns)
    for n in range(heads):
        whole[n, :, n] = blocks[n]
    return whole.view(heads * rows, heads * columns)


def rg_lru(cell: Any, x: Tensor, h: Tensor, begins: Tensor) -> Tensor:
    blocks = [block_diagonal(part) for part in (cell.gate[..., : cell.size], cell.gate[..., cell.size :])]
    biases = [part.flatten() for part in (cell.gate_bias[:, : cell.size], cell.gate_bias[:, cell.size :])]
    found = []
    for t in range(T):
        u, v = cell.projection(x[t]).chunk(2, -1)
        r, i = (torch.sigmoid(u @ block + bias) for block, bias in zip(blocks, biases, strict=True))
        a = torch.sigmoid(-cell.decays.weight) ** (8 * r)
        fresh = begins[t, :, None]
        h = torch.where(fresh, i * u, a * h + torch.sqrt(1 - a**2) * i * u)
        found.append(cell.output(h * gelu(v)))
    return torch.stack(found)


def test_rg_lru_is_its_equations() -> None:
    cell, x, h = made(RGLRU, heads=2), random(T, B, D, seed=1).requires_grad_(), random(B, H, seed=2).requires_grad_()
    y, _ = cell(x, (h, torch.ones(B)), start)
    assert_same(y, rg_lru(cell, x, h, start), [x, h, *cell.parameters()])
    assert not torch.allclose(y, rg_lru(cell, x, h, never))


@pytest.mark.parametrize("decay", ["softplus", "exp", "stable"])
def test_units_remember_as_long_as_asked_for_at_half_open_gates(decay: Any) -> None:
    cell = RGLRU(D, 4, time_scales=(4.0, 16.0), decay=decay, slow_units=0.25)
    with torch.no_grad():
        cell.gate.zero_()
        rate = cell.parts(torch.randn(1, D), torch.float32)[0]
    torch.testing.assert_close(1 / rate[0], torch.tensor([4.0, 8.0, 16.0, 16.0 * SLOW]), rtol=1e-4, atol=0)


# -- decays -----------------------------------------------------------------------------------------------------------


def test_a_stable_rate_moves_no_faster_than_its_weight_says() -> None:
    """|d rate / d w| = 2 |w| rate**2: StableSSM's bound. Other forms move by the rate itself, however slow the unit."""
    rates = torch.logspace(-6, 0, 7, dtype=torch.float64)
    slopes = {}
    for form in ("stable", "exp", "softplus"):
        decays = Decays(rates, form).double()
        torch.testing.assert_close(decays(), rates, rtol=1e-4, atol=0)
        (slope,) = torch.autograd.grad(decays().sum(), decays.weight)
        slopes[form] = slope.abs() / decays().detach() ** 2
    bound = 2 * Decays(rates, "stable").weight.detach().double()
    torch.testing.assert_close(slopes["stable"], bound, rtol=1e-4, atol=0)
    assert (slopes["exp"][0] > 100 * bound[0]) and (slopes["softplus"][0] > 100 * bound[0])


def test_slow_units_come_behind_the_others() -> None:
    tau = time_constants(8, (2.0, 32.0), 0.25)
    torch.testing.assert_close(tau[:6], time_constants(6, (2.0, 32.0)))
    assert tau[6:].tolist() == [32 * SLOW] * 2
    torch.testing.assert_close(torch.sigmoid(spread_bias(8, (2.0, 32.0), 0.25)), (1 / tau).float())
