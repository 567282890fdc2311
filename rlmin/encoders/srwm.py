"""SRWM: a weight matrix that computes its output and its own update."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads, size_of_head
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
        shift, found = one(state), []
        u = self._read(x, shift.dtype)
        with full_precision(x):
            for t in range(len(x)):
                y, shift = self._walk(u[t], wipe(shift, start[t]))
                found.append(y)
        out: Tensor = self.output(torch.stack(found).to(x.dtype))
        return out, shift

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, heads, 3 size + 4, size]."""
        shift = wipe(one(state), start)
        u = self._read(x, shift.dtype)
        with full_precision(x):
            y, shift = self._walk(u, shift)
        out: Tensor = self.output(y.to(x.dtype))
        return out, shift

    def _read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """u [..., heads, size] of x [..., D], in the precision of the state."""
        return torch.softmax(self.projection(x).to(dtype).unflatten(-1, (self.heads, self.size)), dim=-1)

    def _walk(self, u: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """y [B, heads * size] and the shift after a step that reads u [B, heads, size]."""
        W, size = self.base.to(shift.dtype) + shift, self.size
        y, q, k, b = torch.split((W @ u.unsqueeze(-1)).squeeze(-1), [size, size, size, 4], dim=-1)
        q, k = torch.softmax(q, dim=-1), torch.softmax(k, dim=-1)
        gap = (W @ (q - k).unsqueeze(-1)).squeeze(-1)
        rate = torch.sigmoid(b)
        rates = torch.cat([rate[..., :3].repeat_interleave(size, -1), rate[..., 3:].expand(*rate.shape[:-1], 4)], -1)
        return y.flatten(-2), shift + (rates * gap).unsqueeze(-1) * k.unsqueeze(-2)


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
