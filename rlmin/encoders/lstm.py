"""LSTM: the recurrence of torch.nn.LSTM, with resets inside a rollout instead of sequences split at episode ends."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from rlmin.encoders.base import full_precision, one, parts, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.gated_recurrence import GatedRecurrence
from rlmin.encoders.numpy_program import After, NumpyForm, Program, negate
from rlmin.encoders.numpy_program import linear as weights_of
from rlmin.encoders.projected import fits_cpu, fits_gpu
from rlmin.types import State


class LSTM(GatedRecurrence):
    """One layer of LSTM: equations, parameter meaning and initialisation of torch.nn.LSTM.

        i, f, g, o = projection(x[t]) + recurrence(h[t-1]), through sigmoid, sigmoid, tanh, sigmoid
        c[t] = f * c[t-1] + i * g
        h[t] = o * tanh(c[t])

    The gates read h[t-1], so the pass goes step by step; only the input projection is one product over [T, B]. A reset
    costs nothing: the rows that start are zeroed before the step.

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is h.

    Attributes:
        projection: nn.Linear(D, 4H), weight_ih and bias_ih of torch.nn.LSTM, rows [input; forget; cell; output].
        recurrence: nn.Linear(H, 4H), weight_hh and bias_hh.

    The state is (h, c), each [B, H].

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, as torch.nn.LSTM documents it.
    """

    parts: ClassVar[int] = 4

    def initial_state(self, B: int) -> State:
        """(h, c): [B, H] zeros each."""
        return self.zeros(B, self.output_size), self.zeros(B, self.output_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (h, c), [B, H] each; first derivatives only."""
        self.check_input(x, start, state)
        h, c = (one(part) for part in parts(state, 2))
        projection, recurrence = self.projection, self.recurrence
        on_cpu = fits_cpu(recurrence, x, h) and type(projection) is nn.Linear
        if on_cpu and not start.any():  # oneDNN's, which knows no resets
            weights = [projection.weight, recurrence.weight, projection.bias, recurrence.bias]
            y, h, c = torch.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, self.training, False, False)
            return y, (h[0], c[0])
        projected = linear(x, projection.weight, projection.bias + recurrence.bias).to(h.dtype)
        walk: Any = _LSTM
        if on_cpu:
            from rlmin.kernels.lstm import LSTMSequence as walk  # needs numba
        elif fits_gpu(self.recurrence, projected, h):
            from rlmin.kernels.rnn_gpu import LSTMSequence as walk  # needs Triton
        y, h, c = walk.apply(projected, h, c, start, recurrence.weight)
        return y, (h, c)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (h, c), [B, H] each."""
        h, c = (wipe(one(part), start) for part in parts(state, 2))
        projected = self.projection(x).to(h.dtype)
        with full_precision(x):
            i, f, g, o = (projected + self.recurrence(h)).chunk(4, dim=-1)
            c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
            h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class _LSTM(torch.autograd.Function):
    """The walk over time; backward is six small operations a step, and one product for the weights at the end.

    The factors from the gradients of h[t] and c[t] to those of the gates are known before the walk back, so they are
    computed for all steps at once (`factor`).
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, h: Tensor, c: Tensor, start: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, B, H = projected.shape[0], *h.shape
        start = start.unsqueeze(-1)
        h_before, c_before, squashed, y = (h.new_empty(T, B, H) for _ in range(4))
        gates = h.new_empty(T, B, 4 * H)
        inputs, g, o = gates.tensor_split((2 * H, 3 * H), -1)
        i, f = inputs.chunk(2, -1)
        zero, transposed, cell = h.new_zeros(()), weight.t(), torch.empty_like(c)
        for t in range(T):  # into buffers throughout: out= is faster, and autocast leaves it alone
            torch.where(start[t], zero, h, out=h_before[t])
            torch.where(start[t], zero, c, out=c_before[t])
            torch.addmm(projected[t], h_before[t], transposed, out=gates[t])
            inputs[t].sigmoid_()
            g[t].tanh_()
            o[t].sigmoid_()
            c = torch.mul(f[t], c_before[t], out=cell).addcmul_(i[t], g[t])
            h = torch.mul(o[t], torch.tanh(c, out=squashed[t]), out=y[t])
        ctx.save_for_backward(h_before, c_before, squashed, i, f, g, o, start, weight)
        return y, h.clone(), c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh_last: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        h_before, c_before, squashed, i, f, g, o, start, weight = ctx.saved_tensors
        T, B, H = squashed.shape
        to_cell = o * (1 - squashed * squashed)
        factor = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], dim=2)
        to_output = squashed * o * (1 - o)
        kept = f.masked_fill(start, 0)
        keep = torch.cat([~start, start.new_ones(1, B, 1)]).to(dy.dtype)
        dgates = dy.new_empty(T, B, 4, H)
        dh, dc, total = dh_last.clone(), dc_last.clone(), torch.empty_like(dh_last)  # dh: not yet stopped at a start
        for t in range(T - 1, -1, -1):
            torch.addcmul(dy[t], dh, keep[t + 1], out=total)
            dc.addcmul_(total, to_cell[t])
            torch.mul(dc.unsqueeze(1), factor[t], out=dgates[t, :, :3])
            torch.mul(total, to_output[t], out=dgates[t, :, 3])
            dc.mul_(kept[t])
            torch.mm(dgates[t].view(B, 4 * H), weight, out=dh)
        flat = dgates.view(T * B, 4 * H)
        with full_precision(dy):
            dweight = flat.t() @ h_before.view(T * B, H)
        return dgates.view(T, B, 4 * H), dh * keep[0], dc, None, dweight


def write_numpy(program: Program, name: str, mixer: LSTM, read: str, after: After) -> str:
    """One step for numpy: rows [input; forget; output; cell], of [x h]."""
    H = mixer.output_size
    h = program.remember(f"{name}.h", H)
    program.call("copyto", program.view(f"{name}.again", read, "columns", H, 2 * H), h)
    c = program.remember(f"{name}.c", H)
    (weight, bias), (again, shift) = after(weights_of(mixer.projection)), weights_of(mixer.recurrence)
    order = np.concatenate([np.arange(2 * H), np.arange(3 * H, 4 * H), np.arange(2 * H, 3 * H)])
    joined = np.concatenate([weight, again], 1)[order], (bias + shift)[order]
    p = program.product(f"{name}.mixer", read, *negate(joined, 3 * H))
    program.sigmoid(program.view(f"{p}.gates", p, "columns", 0, 3 * H))
    input, forget, output, cell = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(4))
    program.call("tanh", cell, cell)
    program.call("divide", cell, input, cell)
    program.call("divide", c, forget, c)
    program.call("add", c, cell, c)
    program.call("tanh", c, cell)
    program.call("divide", cell, output, h)
    return h


CELL = register(
    Cell(
        "lstm",
        LSTM,
        about="The LSTM of torch.nn, with resets inside a rollout: its gates read the memory, so it runs step by step.",
        to_numpy=NumpyForm(write_numpy, reads_memory=True),
        output_is_memory=False,
        state_names=("h", "c"),
    )
)
