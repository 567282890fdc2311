"""SRWM: a weight matrix that computes its output and its own update."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads, size_of_head
from rlmin.scan.dispatch import runs_loops
from rlmin.settings import Count, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class SRWM(Encoder):
    """One layer of the self-referential weight matrix, per head.

        u[t] = softmax(projection(x[t]));      y, q, k, b = W[t-1] u[t];      q, k = softmax(q), softmax(k)
        W[t] = W[t-1] + sigmoid(b) * (W[t-1] q - W[t-1] k) k'               b: one rate for the rows of y, q, k and b
        out[t] = output(y)

    The state is the difference between W and the learned weights. So it remains valid when the optimizer changes these,
    and a reset returns to them.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of out.
        heads: number of heads; each has hidden_size / heads features, rounded up, and at least 2.

    Attributes:
        projection: nn.Linear(D, heads * size) without bias; output: nn.Linear(heads * size, H).
        base: [heads, 3 size + 4, size], W at the start of an episode, rows [y; q; k; b].

    The state is W - base, [B, heads, 3 size + 4, size].

    Source: Irie et al. 2022 (arXiv:2202.05780), equations 5 to 8, with the four rates of its code.
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, heads: Count = 8) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, max(2, size_of_head(hidden_size, heads))
        self.projection = nn.Linear(input_size, heads * self.size, bias=False)
        self.base = nn.Parameter(torch.randn(heads, 3 * self.size + 4, self.size) * self.size**-0.5)
        self.output = nn.Linear(heads * self.size, hidden_size)

    def initial_state(self, B: int) -> Tensor:
        """[B, heads, 3 size + 4, size] zeros."""
        return self.zeros(B, *self.base.shape)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, heads, 3 size + 4, size]."""
        self.check_input(x, start, state)
        shift = one(state)
        u = self._read(x, shift.dtype)
        with full_precision(x):
            y, shift = self._walk_all(u, shift, start)
        out: Tensor = self.output(y.flatten(-2).to(x.dtype))
        return out, shift

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, heads, 3 size + 4, size]."""
        shift = one(state)
        u = self._read(x, shift.dtype)
        with full_precision(x):
            y, shift = self._walk_all(u.unsqueeze(0), shift, start.unsqueeze(0))
        out: Tensor = self.output(y[0].flatten(-2).to(x.dtype))
        return out, shift

    def _walk_all(self, u: Tensor, shift: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """y [T, B, heads, size] and the last shift, by the fastest way that the tensors allow."""
        base = self.base.to(shift.dtype)
        if runs_loops(u) and u.numel():
            from rlmin.kernels.self_reference import walk  # needs numba, which runs_loops has found

            return walk(_walk_steps, u, base, shift, start)
        return _walk_steps(u, base, shift, start)

    def _read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """u [..., heads, size] of x [..., D], in the precision of the state."""
        return torch.softmax(self.projection(x).to(dtype).unflatten(-1, (self.heads, self.size)), dim=-1)


def _walk_steps(u: Tensor, base: Tensor, shift: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """y [T, B, heads, size] and the last shift [B, heads, 3 size + 4, size], for u [T, B, heads, size]."""
    found = []
    for t in range(len(u)):
        y, shift = _walk(u[t], base, wipe(shift, start[t]))
        found.append(y)
    return torch.stack(found) if found else u, shift


def _walk(u: Tensor, base: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """y and u [B, heads, size]; the shift before and after a step."""
    W, size = base + shift, u.shape[-1]
    y, q, k, b = torch.split((W @ u.unsqueeze(-1)).squeeze(-1), [size, size, size, 4], dim=-1)
    q, k = torch.softmax(q, dim=-1), torch.softmax(k, dim=-1)
    gap = (W @ (q - k).unsqueeze(-1)).squeeze(-1)
    rate = torch.sigmoid(b)
    rates = torch.cat([rate[..., :3].repeat_interleave(size, -1), rate[..., 3:].expand(*rate.shape[:-1], 4)], -1)
    return y, shift + (rates * gap).unsqueeze(-1) * k.unsqueeze(-2)


@dataclass(frozen=True, kw_only=True)
class SRWMOptions(Settings):
    """Options of SRWM."""

    heads: Heads = 8  # Number of heads


CELL = register(
    Cell(
        "srwm",
        SRWM,
        about="A weight matrix that updates itself, step by step.",
        options=SRWMOptions,
        output_is_memory=False,
        is_bounded=False,
    )
)
