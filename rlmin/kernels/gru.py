"""The GRU of torch.nn on the CPU: a matrix product and one pass over the gates for each step, both ways."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.kernels.rnn_loops import loop
from rlmin.scan.cpu import step_table
from rlmin.scan.cpu_memory import empty


class GRUSequence(torch.autograd.Function):
    """(projected [T, B, 3H], state [B, H], start [T, B], weight [3H, H], bias [3H]) -> (y [T, B, H], last [B, H])."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, H = projected.shape[0], *state.shape
        dtype = state.dtype
        projected, bias = projected.contiguous(), bias.contiguous()
        start = torch.cat([start, start.new_zeros(1, B)])  # nothing is wiped after the end
        before, y = empty(T + 1, B, H, dtype=dtype), empty(T, B, H, dtype=dtype)
        gates, recurred = empty(T, B, 4 * H, dtype=dtype), torch.empty(B, 3 * H, dtype=dtype)
        torch.where(start[0].unsqueeze(-1), state.new_zeros(()), state, out=before[0])
        transposed = weight.t().contiguous()  # read T times; small products are faster this way
        arrays = (projected, recurred.unsqueeze(0), bias.view(1, 1, -1), gates, before, y, start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run = loop("gru_forward", dtype).run
        steps = before.unbind(0)
        for t in range(T):
            torch.mm(steps[t], transposed, out=recurred)
            table[0], table[5] = 0, t
            run(table, threads)
        ctx.save_for_backward(before, gates, start, weight)
        return y, before[T].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        before, gates, start, weight = ctx.saved_tensors
        T, B, H = dy.shape
        dtype = dy.dtype
        dy, weight = dy.contiguous(), weight.contiguous()
        dprojected, drecurred = empty(T, B, 3 * H, dtype=dtype), empty(T, B, 3 * H, dtype=dtype)
        carry = dlast.clone(memory_format=torch.contiguous_format)
        arrays = (dy, gates, before, dprojected, drecurred, carry.unsqueeze(0), start.unsqueeze(-1))
        table, threads = step_table(arrays, T, B, H)
        run, steps = loop("gru_backward", dtype).run, drecurred.unbind(0)
        for t in range(T - 1, -1, -1):
            table[0], table[5] = 0, t
            run(table, threads)
            carry.addmm_(steps[t], weight)
        flat = drecurred.view(T * B, 3 * H)
        dweight = flat.t() @ before[:T].view(T * B, H)
        return dprojected, carry.masked_fill_(start[0].unsqueeze(-1), 0), None, dweight, flat.sum(0)
