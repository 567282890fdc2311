"""The LSTM of torch.nn on the CPU: a matrix product and one pass over the gates for each step, both ways."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.kernels.rnn_loops import loop
from rlmin.scan.cpu import step_table
from rlmin.scan.cpu_memory import empty


class LSTMSequence(torch.autograd.Function):
    """(projected [T, B, 4H], h, c [B, H], start [T, B], weight [4H, H]) -> (y [T, B, H], h, c [B, H])."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h: Tensor, c: Tensor, start: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, B, H = projected.shape[0], *h.shape
        dtype = h.dtype
        projected = projected.contiguous()
        start = torch.cat([start, start.new_zeros(1, B)])  # nothing is wiped after the end
        h_before, c_before = (empty(T + 1, B, H, dtype=dtype) for _ in range(2))
        y, gates = empty(T, B, H, dtype=dtype), empty(T, B, 4 * H, dtype=dtype)
        recurred = torch.empty(B, 4 * H, dtype=dtype)
        for first, state in ((h_before[0], h), (c_before[0], c)):
            torch.where(start[0].unsqueeze(-1), state.new_zeros(()), state, out=first)
        transposed = weight.t().contiguous()  # read T times; small products are faster this way
        arrays = (projected, recurred.unsqueeze(0), gates, h_before, c_before, y, start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = loop("lstm_forward", dtype).run, h_before.unbind(0)
        for t in range(T):
            torch.mm(steps[t], transposed, out=recurred)
            table[0], table[5] = 0, t
            run(table, threads)
        ctx.save_for_backward(h_before, c_before, gates, start, weight)
        return y, h_before[T].clone(), c_before[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        h_before, c_before, gates, start, weight = ctx.saved_tensors
        T, B, H = dy.shape
        dy, weight = dy.contiguous(), weight.contiguous()
        dgates = empty(T, B, 4 * H, dtype=dy.dtype)
        dh, dc = (x.clone(memory_format=torch.contiguous_format) for x in (dh_last, dc_last))
        arrays = (dy, gates, c_before, dgates, dh.unsqueeze(0), dc.unsqueeze(0), start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = loop("lstm_backward", dy.dtype).run, dgates.unbind(0)
        for t in range(T - 1, -1, -1):
            table[0], table[5] = 0, t
            run(table, threads)
            torch.mm(steps[t], weight, out=dh)
        dweight = dgates.view(T * B, 4 * H).t() @ h_before[:T].view(T * B, H)
        wiped = start[0].unsqueeze(-1)
        return dgates, dh.masked_fill_(wiped, 0), dc.masked_fill_(wiped, 0), None, dweight
