"""Triton kernels between the matrix products of a GRU and of an LSTM: one launch for the gates of a step, both ways.

torch needs four or five small launches a step. A product with all of a memory's weights has to lie between two steps,
which a library does best; here everything else of a step is one kernel, the reset of the next step included. The
equations are those of `rnn_loops.py`. Rows are [B, parts * H]; a program takes a block of (row, unit).
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.scan.gpu import use_device
from rlmin.scan.gpu_math import sigmoids, tanh

BLOCK = 256
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


class GRUSequence(torch.autograd.Function):
    """(projected [T, B, 3H], state [B, H], start [T, B], weight [3H, H], bias [3H]) -> (h [T, B, H], last [B, H])."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, H = projected.shape[0], *state.shape
        before, gates, h = (state.new_empty(T + 1, B, H), state.new_empty(T, B, 4 * H), state.new_empty(T, B, H))
        before[0] = state.masked_fill(start[0].unsqueeze(-1), 0)
        projected, flags, recurred, transposed = (
            projected.contiguous(),
            _flags(start),
            gates.new_empty(B, 3 * H),
            weight.t(),
        )
        for t in range(T):
            torch.addmm(bias, before[t], transposed, out=recurred)
            arrays = (projected[t], recurred, before[t], flags[t + 1], gates[t], h[t], before[t + 1])
            _launch(_gru_forward, arrays, B, H)
        ctx.save_for_backward(before, gates, start, flags, weight)
        return h, h[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, start, flags, weight = ctx.saved_tensors
        T, B, H = dh.shape
        dh, carry = dh.contiguous(), dlast.clone(memory_format=torch.contiguous_format)
        dprojected, drecurred = dh.new_empty(T, B, 3 * H), dh.new_empty(T, B, 3 * H)
        for t in range(T - 1, -1, -1):
            _launch(_gru_backward, (dh[t], gates[t], before[t], flags[t + 1], carry, dprojected[t], drecurred[t]), B, H)
            carry.addmm_(drecurred[t], weight)
        flat = drecurred.view(T * B, 3 * H)
        dweight = torch.mm(
            flat.t(), before[:T].view(T * B, H), out=torch.empty_like(weight)
        )  # autocast leaves out= alone
        return dprojected, carry.masked_fill_(start[0].unsqueeze(-1), 0), None, dweight, flat.sum(0)


class LSTMSequence(torch.autograd.Function):
    """(projected [T, B, 4H], h [B, H], c [B, H], start [T, B], weight [4H, H]) -> (y [T, B, H], h, c)."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h: Tensor, c: Tensor, start: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, B, H = projected.shape[0], *h.shape
        h_before, c_before = h.new_empty(T + 1, B, H), h.new_empty(T + 1, B, H)
        for memory, kept in ((h, h_before), (c, c_before)):
            kept[0] = memory.masked_fill(start[0].unsqueeze(-1), 0)
        gates, y, last = h.new_empty(T, B, 4 * H), h.new_empty(T, B, H), torch.empty_like(c)
        projected, flags, transposed = projected.contiguous(), _flags(start), weight.t()
        for t in range(T):
            torch.addmm(projected[t], h_before[t], transposed, out=gates[t])
            arrays = (gates[t], c_before[t], flags[t + 1], y[t], last, h_before[t + 1], c_before[t + 1])
            _launch(_lstm_forward, arrays, B, H)
        ctx.save_for_backward(h_before, c_before, gates, start, flags, weight)
        return y, y[-1].clone(), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        h_before, c_before, gates, start, flags, weight = ctx.saved_tensors
        T, B, H = dy.shape
        dy, dh, dc = dy.contiguous(), *(x.clone(memory_format=torch.contiguous_format) for x in (dh_last, dc_last))
        dgates = dy.new_empty(T, B, 4 * H)
        for t in range(T - 1, -1, -1):
            _launch(_lstm_backward, (dy[t], gates[t], c_before[t], flags[t + 1], dh, dc, dgates[t]), B, H)
            torch.mm(dgates[t], weight, out=dh)
        flat, old = dgates.view(T * B, 4 * H), h_before[:T].view(T * B, H)
        dweight = torch.mm(flat.t(), old, out=torch.empty_like(weight))  # autocast leaves out= alone
        first = start[0].unsqueeze(-1)
        return dgates, dh.masked_fill_(first, 0), dc.masked_fill_(first, 0), None, dweight


def _flags(start: Tensor) -> Tensor:
    """[T + 1, B] uint8: the starts, and none after the last step."""
    return torch.cat([start, torch.zeros_like(start[:1])]).view(torch.uint8)


def _launch(kernel: Any, arrays: tuple[Tensor, ...], B: int, H: int) -> None:
    with use_device(arrays[0].device):
        kernel[(triton.cdiv(B * H, BLOCK),)](*arrays, B * H, H, BLOCK=BLOCK, **OPTIONS)


@triton.jit
def _place(N, H, BLOCK: tl.constexpr):
    """(lane, row, unit, whether the lane exists), lane = row * H + unit."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return lane, lane // H, lane % H, lane < N


@triton.jit(do_not_specialize=["N"])
def _gru_forward(projected, recurred, before, restart, gates, h, after, N, H, BLOCK: tl.constexpr):
    lane, row, unit, live = _place(N, H, BLOCK)
    wide = row * 3 * H + unit
    old = tl.load(before + lane, mask=live, other=0)
    hn = tl.load(recurred + wide + 2 * H, mask=live, other=0)
    r = tl.load(projected + wide, mask=live, other=0) + tl.load(recurred + wide, mask=live, other=0)
    z = tl.load(projected + wide + H, mask=live, other=0) + tl.load(recurred + wide + H, mask=live, other=0)
    r = sigmoids(r)[0]
    z = sigmoids(z)[0]
    n = tanh(tl.load(projected + wide + 2 * H, mask=live, other=0) + r * hn)
    y = n + z * (old - n)
    saved = gates + row * 4 * H + unit
    tl.store(saved, r, mask=live)
    tl.store(saved + H, z, mask=live)
    tl.store(saved + 2 * H, n, mask=live)
    tl.store(saved + 3 * H, hn, mask=live)
    tl.store(h + lane, y, mask=live)
    cut = tl.load(restart + row, mask=live, other=0) != 0
    tl.store(after + lane, tl.where(cut, 0, y), mask=live)


@triton.jit(do_not_specialize=["N"])
def _gru_backward(dh, gates, before, restart, carry, dprojected, drecurred, N, H, BLOCK: tl.constexpr):
    lane, row, unit, live = _place(N, H, BLOCK)
    saved, wide = gates + row * 4 * H + unit, row * 3 * H + unit
    r = tl.load(saved, mask=live, other=0)
    z = tl.load(saved + H, mask=live, other=0)
    n = tl.load(saved + 2 * H, mask=live, other=0)
    hn = tl.load(saved + 3 * H, mask=live, other=0)
    cut = tl.load(restart + row, mask=live, other=0) != 0
    late = tl.where(cut, 0, tl.load(carry + lane, mask=live, other=0))
    g = tl.load(dh + lane, mask=live, other=0) + late
    dn = g * (1 - z) * (1 - n * n)
    dz = g * (tl.load(before + lane, mask=live, other=0) - n) * z * (1 - z)
    dr = dn * hn * r * (1 - r)
    tl.store(dprojected + wide, dr, mask=live)
    tl.store(dprojected + wide + H, dz, mask=live)
    tl.store(dprojected + wide + 2 * H, dn, mask=live)
    tl.store(drecurred + wide, dr, mask=live)
    tl.store(drecurred + wide + H, dz, mask=live)
    tl.store(drecurred + wide + 2 * H, dn * r, mask=live)
    tl.store(carry + lane, g * z, mask=live)


@triton.jit(do_not_specialize=["N"])
def _lstm_forward(gates, before, restart, y, last, h_after, c_after, N, H, BLOCK: tl.constexpr):
    lane, row, unit, live = _place(N, H, BLOCK)
    saved = gates + row * 4 * H + unit
    i = sigmoids(tl.load(saved, mask=live, other=0))[0]
    f = sigmoids(tl.load(saved + H, mask=live, other=0))[0]
    g = tanh(tl.load(saved + 2 * H, mask=live, other=0))
    o = sigmoids(tl.load(saved + 3 * H, mask=live, other=0))[0]
    c = f * tl.load(before + lane, mask=live, other=0) + i * g
    h = o * tanh(c)
    tl.store(saved, i, mask=live)
    tl.store(saved + H, f, mask=live)
    tl.store(saved + 2 * H, g, mask=live)
    tl.store(saved + 3 * H, o, mask=live)
    tl.store(y + lane, h, mask=live)
    tl.store(last + lane, c, mask=live)
    cut = tl.load(restart + row, mask=live, other=0) != 0
    tl.store(h_after + lane, tl.where(cut, 0, h), mask=live)
    tl.store(c_after + lane, tl.where(cut, 0, c), mask=live)


@triton.jit(do_not_specialize=["N"])
def _lstm_backward(dy, gates, before, restart, dh, dc, dgates, N, H, BLOCK: tl.constexpr):
    lane, row, unit, live = _place(N, H, BLOCK)
    saved, out = gates + row * 4 * H + unit, dgates + row * 4 * H + unit
    i = tl.load(saved, mask=live, other=0)
    f = tl.load(saved + H, mask=live, other=0)
    g = tl.load(saved + 2 * H, mask=live, other=0)
    o = tl.load(saved + 3 * H, mask=live, other=0)
    old = tl.load(before + lane, mask=live, other=0)
    cut = tl.load(restart + row, mask=live, other=0) != 0
    squashed = tanh(f * old + i * g)
    to_h = tl.load(dy + lane, mask=live, other=0) + tl.where(cut, 0, tl.load(dh + lane, mask=live, other=0))
    to_c = tl.where(cut, 0, tl.load(dc + lane, mask=live, other=0)) + to_h * o * (1 - squashed * squashed)
    tl.store(out, to_c * g * i * (1 - i), mask=live)
    tl.store(out + H, to_c * old * f * (1 - f), mask=live)
    tl.store(out + 2 * H, to_c * i * (1 - g * g), mask=live)
    tl.store(out + 3 * H, to_h * squashed * o * (1 - o), mask=live)
    tl.store(dc + lane, to_c * f, mask=live)
