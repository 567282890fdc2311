"""GRU: the recurrence of torch.nn.GRU, with resets inside a rollout instead of sequences split at episode ends."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.encoders.base import full_precision, one, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.gated_recurrence import GatedRecurrence
from rlmin.encoders.numpy_program import After, NumpyForm, Program, linear, negate
from rlmin.encoders.projected import fits_cpu, fits_gpu
from rlmin.types import State


class GRU(GatedRecurrence):
    """One layer of GRU: equations, parameter meaning and initialisation of torch.nn.GRU.

        xr, xz, xn = projection(x[t]);   hr, hz, hn = recurrence(h[t-1])
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        n = tanh(xn + r * hn)
        h[t] = n + z * (h[t-1] - n)

    The gates read h[t-1], so the pass goes step by step; only the input projection is one product over [T, B]. A reset
    costs nothing: the rows that start are zeroed before the step.

    Args:
        input_size: D, features of x.
        hidden_size: H, units of memory; the output is the memory itself.

    Attributes:
        projection: nn.Linear(D, 3H), weight_ih and bias_ih of torch.nn.GRU, rows [reset; update; new].
        recurrence: nn.Linear(H, 3H), weight_hh and bias_hh.

    Source: Cho et al. 2014 (arXiv:1406.1078), in the form torch.nn.GRU documents.
    """

    parts: ClassVar[int] = 3

    def initial_state(self, B: int) -> Tensor:
        """[B, H] zeros."""
        return self.zeros(B, self.output_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, H]; first derivatives only."""
        self.check_input(x, start, state)
        before = one(state)
        projected = self.projection(x).to(before.dtype)
        walk: Any = _GRU
        if fits_cpu(self.recurrence, projected, before):
            from rlmin.kernels.gru import GRUSequence as walk  # needs numba
        elif fits_gpu(self.recurrence, projected, before):
            from rlmin.kernels.rnn_gpu import GRUSequence as walk  # needs Triton
        h, last = walk.apply(projected, before, start, self.recurrence.weight, self.recurrence.bias)
        return h, last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, H]."""
        before = wipe(one(state), start)
        projected = self.projection(x).to(before.dtype)
        with full_precision(x):
            xrz, xn = projected.tensor_split((2 * self.output_size,), dim=-1)
            hrz, hn = self.recurrence(before).tensor_split((2 * self.output_size,), dim=-1)
            r, z = torch.sigmoid(xrz + hrz).chunk(2, dim=-1)
            n = torch.tanh(torch.addcmul(xn, r, hn))
            h = torch.lerp(n, before, z)
        return h, h


class _GRU(torch.autograd.Function):
    """The walk over time; backward is four small operations a step, and one product for the weights at the end.

    The factors from the gradient of h[t] to those of the gates are known before the walk back, so they are computed for
    all steps at once (`factor`).
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, H = projected.shape[0], *state.shape
        start = start.unsqueeze(-1)
        before, n, h = (state.new_empty(T, B, H) for _ in range(3))
        rz, recurred = state.new_empty(T, B, 2 * H), state.new_empty(T, B, 3 * H)
        (xrz, xn), (hrz, hn) = (part.tensor_split((2 * H,), -1) for part in (projected, recurred))
        r, z = rz.chunk(2, -1)
        zero, transposed = state.new_zeros(()), weight.t()
        for t in range(T):  # into buffers throughout: out= is faster, and autocast leaves it alone
            torch.where(start[t], zero, state, out=before[t])
            torch.addmm(bias, before[t], transposed, out=recurred[t])
            torch.add(xrz[t], hrz[t], out=rz[t]).sigmoid_()
            torch.addcmul(xn[t], r[t], hn[t], out=n[t]).tanh_()
            state = torch.lerp(n[t], before[t], z[t], out=h[t])
        ctx.save_for_backward(before, r, z, n, hn, start, weight)
        return h, h[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        before, r, z, n, hn, start, weight = ctx.saved_tensors
        T, B, H = n.shape
        new = (1 - z) * (1 - n * n)
        factor = torch.stack([new * hn * r * (1 - r), (before - n) * z * (1 - z), new * r], dim=2)
        drecurred, total = torch.empty_like(factor), torch.empty_like(n)
        keep = torch.cat([~start, start.new_ones(1, B, 1)]).to(dh.dtype)
        carry = dlast.clone()  # the gradient of before[t + 1]; the part keep[t + 1] of it reaches h[t]
        for t in range(T - 1, -1, -1):
            g = torch.addcmul(dh[t], carry, keep[t + 1], out=total[t])
            torch.mul(g.unsqueeze(1), factor[t], out=drecurred[t])
            torch.mul(g, z[t], out=carry).addmm_(drecurred[t].view(B, 3 * H), weight)
        dprojected = torch.cat([drecurred[:, :, :2].flatten(2), total * new], dim=-1)
        flat = drecurred.view(T * B, 3 * H)
        with full_precision(dh):
            dweight = flat.t() @ before.view(T * B, H)
        return dprojected, carry * keep[0], None, dweight, flat.sum(0)


def write_numpy(program: Program, name: str, mixer: GRU, read: str, after: After) -> str:
    """One step for numpy: rows [reset; update; new of x; new of h], of [x h]."""
    H = mixer.output_size
    h = program.remember(f"{name}.h", H)
    program.call("copyto", program.view(f"{name}.again", read, "columns", H, 2 * H), h)
    (weight, bias), (again, shift) = after(linear(mixer.projection)), linear(mixer.recurrence)
    nothing = np.zeros((H, H))
    of_x, of_h = np.concatenate([weight, nothing]), np.concatenate([again[: 2 * H], nothing, again[2 * H :]])
    both = np.concatenate([bias[: 2 * H] + shift[: 2 * H], bias[2 * H :], shift[2 * H :]])
    p = program.product(f"{name}.mixer", read, *negate((np.concatenate([of_x, of_h], 1), both), 2 * H))
    program.sigmoid(program.view(f"{p}.gates", p, "columns", 0, 2 * H))
    reset, update, new, old = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(4))
    program.call("divide", old, reset, old)
    program.call("add", new, old, new)
    program.call("tanh", new, new)
    program.call("subtract", h, new, h)
    program.call("divide", h, update, h)
    program.call("add", h, new, h)
    return h


CELL = register(
    Cell(
        "gru",
        GRU,
        about="The GRU of torch.nn, with resets inside a rollout: its gates read the memory, so it runs step by step.",
        to_numpy=NumpyForm(write_numpy, reads_memory=True),
    )
)
