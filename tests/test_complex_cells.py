"""Cells with complex memories: the published LRU, and the recurrences of the papers in torch's complex numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from LRU_pytorch import LRU as PublishedLRU
from torch import Tensor
from torch.nn.functional import silu

from rlmin.encoders import CELLS, FFM, LRU, Encoder, GateLoop, register
from rlmin.inspection.recurrence import contribution, deletion_error, memory_of, output_of

T, B, D, H = 6, 2, 4, 5


def disturbed(encoder: Encoder) -> Any:
    generator = torch.Generator().manual_seed(1)
    for weight in encoder.double().parameters():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return encoder


def drawn(cell: Encoder) -> tuple[Tensor, Tensor, Tensor]:
    """x, a state that is not zero and some starts."""
    generator = torch.Generator().manual_seed(2)
    state = cell.initial_state(B)
    assert isinstance(state, Tensor)
    start = torch.zeros(T, B, dtype=torch.bool)
    start[3, 1] = True
    x, state = (torch.randn(size, dtype=torch.float64, generator=generator) for size in ((T, B, D), state.shape))
    return x, state, start


@torch.no_grad()
def test_lru_is_the_published_one() -> None:
    torch.manual_seed(0)
    ours, theirs = disturbed(LRU(D, H)), PublishedLRU(D, H, H).double()
    pairs = torch.view_as_complex(ours.input.weight.view(H, 2, D).movedim(1, -1).contiguous())
    theirs.B.data = pairs
    out = ours.output.weight.view(H, H, 2)
    theirs.C.data = torch.complex(out[..., 0], -out[..., 1])  # real(C h) = re re - im im
    theirs.nu_log.data, theirs.theta_log.data = ours.log_rate.data, ours.log_phase.data
    theirs.gamma_log.data, theirs.D.data = ours.log_gain.data, ours.skip.weight.data
    x, state, _ = drawn(ours)
    never = torch.zeros(T, B, dtype=torch.bool)
    wanted = []
    for b in range(B):  # it wants one sequence, in float32 of its own making
        theirs.state = None
        wanted.append(theirs(x[:, b], torch.view_as_complex(state[b])))
    y, _ = ours(x, state, never)
    torch.testing.assert_close((y - ours.output.bias).float(), torch.stack(wanted, 1).float(), rtol=1e-5, atol=1e-5)
    ours.log_phase += 0.1
    assert not torch.allclose(ours(x, state, never)[0], y)


def test_a_new_lru_has_the_ring_and_the_size_that_it_should() -> None:
    torch.manual_seed(0)
    cell = LRU(8, 4000, radii=(0.5, 0.9), phase=1.0)
    size, angle = (x.detach() for x in cell.transition())
    assert 0.5 <= size.min() < 0.51 and 0.89 < size.max() <= 0.9 and 0.98 < angle.max() <= 1
    inner = float((size < (0.5 * (0.5**2 + 0.9**2)) ** 0.5).double().mean())
    assert abs(inner - 0.5) < 0.03  # half of them on the inner half of the area
    torch.testing.assert_close(cell.log_gain.exp(), (1 - size.square()).sqrt(), rtol=1e-3, atol=1e-5)
    cell = LRU(32, 64, radii=(0.5, 0.9))
    x = torch.randn(60, 256, 32)
    _, h = cell(x, cell.initial_state(256), torch.zeros(60, 256, dtype=torch.bool))
    assert isinstance(h, Tensor)
    assert 0.9 < h.square().sum(-1).mean() < 1.1  # as large as its input
    with pytest.raises(ValueError, match="radii: expected 0 <= least <= largest < 1"):
        LRU(D, H, radii=(0.9, 1.0))


@torch.no_grad()
def test_gate_loop_is_its_recurrence() -> None:
    torch.manual_seed(0)
    cell = disturbed(GateLoop(D, H))
    x, state, start = drawn(cell)
    y, last = cell(x, state, start)
    h = torch.view_as_complex(state)
    for t in range(T):
        h = torch.where(start[t, :, None], 0, h)
        q, k, v = (x[t] @ cell.projection.weight.T).split(H, -1)
        keep, turn = (x[t] @ cell.transition.weight.T + cell.transition.bias).split(H, -1)
        h = torch.polar(torch.sigmoid(keep), turn) * h + k * v
        seen = (q * h).real
        normed = seen / (seen.square().mean(-1, keepdim=True) + 1e-5).sqrt() * cell.norm.weight
        want = (normed * silu(x[t] @ cell.gate.weight.T)) @ cell.output.weight.T + cell.output.bias
        torch.testing.assert_close(y[t], want)
    torch.testing.assert_close(torch.view_as_complex(last), h)
    cell.transition.bias[H:] += 0.1
    assert not torch.allclose(cell(x, state, start)[0], y)


@torch.no_grad()
def test_ffm_is_its_recurrence() -> None:
    torch.manual_seed(0)
    cell = disturbed(FFM(D, H, traces=3, contexts=2))
    x, state, start = drawn(cell)
    y, last = cell(x, state, start)
    S = torch.view_as_complex(state)
    gamma = torch.exp(torch.complex(-cell.rate.abs()[:, None].expand(3, 2), cell.frequency.expand(3, 2)))
    for t in range(T):
        S = torch.where(start[t, :, None, None], 0, S)
        S = gamma * S + (cell.input(x[t]) * torch.sigmoid(cell.input_gate(x[t]))).unsqueeze(-1)
        z = cell.mix(torch.view_as_real(S).flatten(-3))
        share = torch.sigmoid(cell.output_gate(x[t]))
        normed = (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(y[t], normed * share + cell.skip(x[t]) * (1 - share))
    torch.testing.assert_close(torch.view_as_complex(last), S)
    cell.frequency += 0.1
    assert not torch.allclose(cell(x, state, start)[0], y)


@pytest.mark.parametrize("kind", [LRU, GateLoop, FFM])
@torch.no_grad()
def test_inspection_takes_it_apart_exactly(kind: type[Encoder]) -> None:
    torch.manual_seed(0)
    cell = disturbed(kind(D, H))
    x, start = torch.randn(T, D, dtype=torch.float64), torch.arange(T) % 4 == 0
    memory, _ = memory_of(cell, x[:, None], start[:, None])
    part = contribution(cell, x, start)
    assert memory.is_complex() and not part[4:, :4].any()
    torch.testing.assert_close(part.sum(1), memory[:, 0])
    y, _ = cell(x[:, None], cell.initial_state(1), start[:, None])
    torch.testing.assert_close(output_of(cell, x[:, None], memory), y)
    assert deletion_error(cell, x, start, steps=torch.arange(T)) < 1e-12
    registered = next(one for one in CELLS.values() if one.cls is kind)
    right = registered.terms
    assert right is not None
    register(replace(registered, terms=lambda mixer, x: right(mixer, x.roll(1, 0))))  # off by a step
    try:
        assert deletion_error(cell, x, start, steps=torch.arange(T)) > 1e-3
    finally:
        register(registered)
