"""The cells on `linear_scan`, each against its paper's recurrence written naively, one step and one row at a time."""

from typing import Any

import pytest
import torch
from cell_draws import B, D, H, T, assert_same, made, never, random, start
from torch import Tensor
from torch.nn.functional import gelu, silu, softplus

from rlmin.encoders import RGLRU, SHM, Attention, Mamba, Stack
from rlmin.encoders.decays import Decays
from rlmin.encoders.time_scale import SLOW, spread_bias, spread_time_constants

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


# -- Griffin: De et al. 2024, section 2.2 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "period", "kinds"), [(2, 2, "ra"), (3, 3, "rra"), (5, 3, "rrarr"), (1, 2, "r"), (2, 1, "aa")]
)
def test_the_last_of_every_period_of_layers_is_attention(layers: int, period: int, kinds: str) -> None:
    stack = Stack(D, 8, mixer="griffin", layers=layers, period=period, context=5, heads=2)
    mixers: list[Any] = [block.mixer for block in stack.blocks]
    assert [type(mixer) for mixer in mixers] == [{"r": RGLRU, "a": Attention}[kind] for kind in kinds]
    assert all(mixer.heads == 2 for mixer in mixers) and all(m.context == 5 for m in mixers if type(m) is Attention)


# -- Mamba: Gu and Dao 2023, and the package mambapy -------------------------------------------------------------------


def mamba(cell: Any, x: Tensor, h: Tensor, begins: Tensor) -> Tensor:
    found = []
    for t in range(T):
        h = torch.where(begins[t, :, None, None], torch.zeros_like(h), h)
        u, z = cell.projection(x[t]).chunk(2, -1)
        u = silu(u)
        rank = cell.step_size.in_features
        small, b, c = cell.select(u).split([rank, cell.states, cell.states], -1)
        dt = softplus(cell.step_size(small))
        keep = torch.exp(torch.einsum("be,en->ben", dt, -cell.log_rate.exp()))
        h = (2 * keep - 1 if cell.signed else keep) * h + torch.einsum("be,bn,be->ben", dt, b, u)
        found.append(cell.output((torch.einsum("ben,bn->be", h, c) + cell.skip * u) * silu(z)))
    return torch.stack(found)


@pytest.mark.parametrize("signed", [False, True])
def test_mamba_is_its_equations(signed: bool) -> None:
    cell = made(Mamba, states=3, signed=signed)
    x, h = random(T, B, D, seed=1).requires_grad_(), random(B, 2 * H, 3, seed=2).requires_grad_()
    y, _ = cell(x, h, start)
    assert_same(y, mamba(cell, x, h, start), [x, h, *cell.parameters()])
    assert not torch.allclose(y, mamba(cell, x, h, never))


def test_mamba_is_that_of_mambapy() -> None:
    """Its block has a convolution inside, which is made the identity here; it knows no resets."""
    package = pytest.importorskip("mambapy.mamba")
    torch.manual_seed(0)
    config = package.MambaConfig(d_model=H, n_layers=1, d_state=3)
    block, cell = package.MambaBlock(config).double(), Mamba(H, H, states=3).double()
    with torch.no_grad():
        block.conv1d.weight.zero_()[..., -1] = 1
        block.conv1d.bias.zero_()
    theirs = {
        "in_proj.weight": "projection.weight",
        "x_proj.weight": "select.weight",
        "dt_proj.weight": "step_size.weight",
    }
    theirs |= {"dt_proj.bias": "step_size.bias", "A_log": "log_rate", "D": "skip", "out_proj.weight": "output.weight"}
    cell.load_state_dict({ours: block.state_dict()[name] for name, ours in theirs.items()})
    x = random(8, B, H, seed=1)
    y, _ = cell(x, cell.initial_state(B), torch.zeros(8, B, dtype=torch.bool))
    torch.testing.assert_close(y, block(x.transpose(0, 1)).transpose(0, 1), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(cell(x, cell.initial_state(B), start[:8])[0], y)


# -- SHM: Le et al. 2024, as its code has it ---------------------------------------------------------------------------


def shm(cell: Any, x: Tensor, M: Tensor, begins: Tensor) -> Tensor:
    found = []
    for t in range(T):
        M = torch.where(begins[t, :, None, None], torch.zeros_like(M), M)
        v, k, q, g, s = cell.projection(x[t]).split([cell.size] * 4 + [1], -1)
        k, q = (p.relu() / (1e-5 + p.relu().sum(-1, keepdim=True)) for p in (k, q))
        C = torch.minimum(1 + torch.tanh(torch.einsum("i,bj->bij", cell.row, g)), torch.tensor(cell.largest).double())
        M = M * C + torch.einsum("bi,bj->bij", torch.sigmoid(s) * v, k)
        found.append(cell.output(torch.einsum("bij,bj->bi", M, q)))
    return torch.stack(found)


@pytest.mark.parametrize("largest", [2.0, 1.0])
def test_shm_is_its_equations(largest: float) -> None:
    cell = made(SHM, size=5, largest=largest)
    x, M = random(T, B, D, seed=1).requires_grad_(), random(B, 5, 5, seed=2).requires_grad_()
    y, _ = cell(x, M, start)
    assert_same(y, shm(cell, x, M, start), [x, M, *cell.parameters()])
    assert not torch.allclose(y, shm(cell, x, M, never))


def test_the_published_memory_grows_without_bound_and_the_bounded_one_does_not() -> None:
    sizes = []
    for largest in (2.0, 1.0):
        cell, x = SHM(D, H, size=5, largest=largest), torch.ones(200, 1, D)
        with torch.no_grad():
            cell.projection.weight.abs_()
            cell.row.fill_(9.0)
            _, M = cell(x, cell.initial_state(1), torch.zeros(200, 1, dtype=torch.bool))
        assert isinstance(M, Tensor)
        sizes.append(float(M.abs().max()))
    assert sizes[0] > 1e20 and sizes[1] < 100


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
    tau = spread_time_constants(8, (2.0, 32.0), 0.25)
    torch.testing.assert_close(tau[:6], spread_time_constants(6, (2.0, 32.0)))
    assert tau[6:].tolist() == [32 * SLOW] * 2
    torch.testing.assert_close(torch.sigmoid(spread_bias(8, (2.0, 32.0), 0.25)), (1 / tau).float())
