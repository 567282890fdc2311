"""Cells without a scan, each against another implementation or its paper's recurrence written naively."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cell_draws import B, D, H, T, assert_same, made, never, random, start
from torch import Tensor

from rlmin.encoders import LMU, SLSTM, SRWM, CoupledLMU, RegularLRNN
from rlmin.encoders.legendre import make_legendre
from rlmin.encoders.lmu import CHUNK


def wiped(part: Tensor, begins: Tensor) -> Tensor:
    return torch.where(begins.view(-1, *[1] * (part.dim() - 1)), torch.zeros_like(part), part)


# -- the Legendre system ----------------------------------------------------------------------------------------------


def test_the_coefficients_of_a_window_give_back_what_was_in_it() -> None:
    """The delayed input is the polynomial at that delay: sum of m_i P_i(2 delay / window - 1), shifted Legendre."""
    A, B = make_legendre(10, 40.0)
    t = torch.arange(120, dtype=torch.float64)
    u, m = torch.sin(t / 12), torch.zeros(10, dtype=torch.float64)
    for value in u:
        m = A @ m + B * value
    for delay in (0, 10, 20, 40):
        r = 2 * delay / 40 - 1
        P = [1.0, r]
        for i in range(1, 9):
            P.append(((2 * i + 1) * r * P[i] - i * P[i - 1]) / (i + 1))
        wanted = float(torch.sin((t[-1] + 0.5 - delay) / 12))  # inputs are held for a step
        assert abs(float(m @ torch.tensor(P, dtype=torch.float64)) - wanted) < 0.03
    assert not torch.allclose(A, make_legendre(10, 41.0)[0])


def lmu(cell: Any, x: Tensor, m: Tensor, begins: Tensor) -> Tensor:
    A, impulse = make_legendre(cell.order, 8.0)
    found = []
    for t in range(len(x)):
        m = torch.einsum("de,bce->bcd", A, wiped(m, begins[t])) + torch.einsum("d,bc->bcd", impulse, cell.encode(x[t]))
        found.append(torch.tanh(cell.output(torch.cat([x[t], m.flatten(1)], -1))))
    return torch.stack(found)


@pytest.mark.parametrize("steps", [1, CHUNK, 2 * CHUNK + 3])
def test_the_parallel_lmu_is_the_recurrence(steps: int) -> None:
    cell = made(LMU, channels=2, order=5, window=8.0)
    x, m = random(steps, B, D, seed=1).requires_grad_(), random(B, 2, 5, seed=2).requires_grad_()
    begins = torch.rand(steps, B, generator=torch.Generator().manual_seed(3)) < 0.15
    y, _ = cell(x, m, begins)
    assert_same(y, lmu(cell, x, m, begins), [x, m, *cell.parameters()])
    assert not torch.allclose(y, lmu(cell, x, m, ~begins))


def test_an_order_that_cannot_be_diagonalised_is_exact_in_float32() -> None:
    cell: Any = LMU(D, H, order=32, window=64.0)
    x = torch.randn(512, 1, D)
    begins = torch.zeros(512, 1, dtype=torch.bool)
    with torch.no_grad():
        y, m = cell(x, cell.initial_state(1), begins)
        cell = cell.double()
        want, exact = cell(x.double(), cell.initial_state(1), begins)
    assert float((y - want).abs().max()) < 1e-4 and float((m - exact).norm() / exact.norm()) < 1e-5


def test_the_coupled_lmu_is_that_of_popgym() -> None:
    spec = importlib.util.find_spec("popgym")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "baselines/models/lmu.py"  # by its path: the package around it needs ray
    spec = importlib.util.spec_from_file_location("popgym_lmu", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cell, theirs = made(CoupledLMU, order=5, window=8.0), module.LMUCell(D, H, 5, 8.0).double()
    theirs.A, theirs.B = (part.view(5, -1) for part in make_legendre(5, 8.0))
    torch.testing.assert_close(theirs.stateSpaceMatrices(5, 8.0)[0], make_legendre(5, 8.0)[0].numpy())
    with torch.no_grad():
        theirs.e_x.copy_(cell.encode.weight)
        theirs.e_h.copy_(cell.recall.weight[:, :H])
        theirs.e_m.copy_(cell.recall.weight[:, H:])
        theirs.W_x.copy_(cell.project.weight)
        theirs.W_h.copy_(cell.mix.weight[:, :H])
        theirs.W_m.copy_(cell.mix.weight[:, H:])
        cell.project.bias.zero_()
    x, h, m = random(T, B, D, seed=1).requires_grad_(), random(B, H, seed=2), random(B, 5, seed=3)
    held, found = (h, m), []
    for t in range(T):
        held = theirs(x[t], tuple(wiped(part, start[t]) for part in held))
        found.append(held[0])
    y, _ = cell(x, (h, m), start)
    assert_same(y, torch.stack(found), [x])
    assert not torch.allclose(y, cell(x, (h, m), never)[0])


# -- sLSTM: Beck et al. 2024, equations 8 to 14, without any scale -----------------------------------------------------


def slstm(cell: Any, x: Tensor, begins: Tensor) -> Tensor:
    """From nothing; gates as they are, so exponents are bounded by float64 alone."""
    h, c, n = (torch.zeros(B, cell.units, dtype=torch.float64) for _ in range(3))
    found = []
    for t in range(T):
        h, c, n = (wiped(part, begins[t]) for part in (h, c, n))
        gates = cell.projection(x[t]).view(B, 4, cell.heads, cell.size).clone()
        for head in range(cell.heads):
            own = h.view(B, cell.heads, cell.size)[:, head] @ cell.recurrence[head]
            gates[:, :, head] += own.view(B, 4, cell.size)
        i, f, z, o = gates.flatten(2).unbind(1)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        found.append(cell.output(h))
    return torch.stack(found)


def test_slstm_survives_a_reset_of_one_row_and_gates_of_any_size() -> None:
    """An input gate of -120 in a row that has just begun, beside rows that go on: 0 / 0 where m is not of each row."""
    cell: Any = SLSTM(D, H)
    for size in (-120.0, 120.0):
        with torch.no_grad():
            cell.projection.bias[: cell.units] = size
            y, state = cell(torch.randn(T, B, D), cell.initial_state(B), start)
        assert all(torch.isfinite(part).all() for part in (y, *state))
        assert float(state[2].min()) >= 1 - 1e-6


# -- SRWM: Irie et al. 2022, equations 5 to 8 -------------------------------------------------------------------------


def srwm(cell: Any, x: Tensor, begins: Tensor) -> Tensor:
    """Row by row and head by head, with the whole W."""
    size, out = cell.size, torch.zeros(T, B, cell.heads * cell.size, dtype=torch.float64)
    found = [[cell.base[head] for head in range(cell.heads)] for _ in range(B)]
    rows = []
    for t in range(T):
        for row in range(B):
            for head in range(cell.heads):
                W = cell.base[head] if begins[t, row] else found[row][head]
                u = torch.softmax(cell.projection(x[t, row])[head * size : (head + 1) * size], 0)
                y, q, k, b = (W @ u).split([size, size, size, 4])
                q, k, rate = torch.softmax(q, 0), torch.softmax(k, 0), torch.sigmoid(b)
                rates = torch.stack([*[rate[0]] * size, *[rate[1]] * size, *[rate[2]] * size, *[rate[3]] * 4])
                found[row][head] = W + rates[:, None] * torch.outer(W @ q - W @ k, k)
                rows.append(y)
    return cell.output(torch.stack(rows).view(out.shape))  # type: ignore[no-any-return]


# -- RegularLRNN: Fan et al. 2023, equations 5 to 7, and the norm of its code -----------------------------------------


def regular_lrnn(cell: Any, x: Tensor, begins: Tensor) -> Tensor:
    """Row by row, with the whole block-diagonal matrix of each step."""
    blocks, size = cell.base.shape
    rows = []
    for row in range(B):
        memory = cell.base.flatten()
        for t in range(T):
            memory = cell.base.flatten() if begins[t, row] else memory
            whole = torch.zeros(blocks * size, blocks * size, dtype=torch.float64)
            for n, M in enumerate(cell.matrix(x[t, row]).view(blocks, size, size)):
                M = M - M.mean(0)
                longest = max(M[:, j].abs().pow(1.2).sum() ** (1 / 1.2) for j in range(size))
                whole[n * size : (n + 1) * size, n * size : (n + 1) * size] = M / longest
            memory = whole @ memory + cell.value(x[t, row])
            rows.append(cell.output(memory))
    return torch.stack(rows).view(B, T, H).transpose(0, 1)


def test_its_products_hardly_grow() -> None:
    """No column is longer than 1 in the p-norm, so that no step adds to the sum of the sizes of all units."""
    cell: Any = RegularLRNN(D, 8)
    with torch.no_grad():
        A, _ = cell.transitions(torch.randn(500, 1, D), torch.float32)
    assert float(A.abs().pow(1.2).sum(-2).max()) <= 1 + 1e-5
    product = torch.eye(8)
    for t in range(500):
        product = A[t, 0, 0] @ product
    assert float(product.norm()) < 1


# -- all three --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "equations", "options"),
    [(SLSTM, slstm, {"heads": 2}), (SRWM, srwm, {"heads": 2}), (RegularLRNN, regular_lrnn, {"block": 3})],
)
def test_a_cell_is_its_equations(cls: Any, equations: Callable[..., Tensor], options: dict[str, Any]) -> None:
    cell, x = made(cls, **options), random(T, B, D, seed=1).requires_grad_()
    y, _ = cell(x, cell.initial_state(B), start)
    assert_same(y, equations(cell, x, start), [x, *cell.parameters()])
    assert not torch.allclose(y, equations(cell, x, never))
