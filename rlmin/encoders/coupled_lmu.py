"""LMU as first published: hidden state and memory decide what is stored, step by step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, check_counts, full_precision, one, parts, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.legendre import make_legendre
from rlmin.settings import Count, Positive, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class CoupledLMU(Encoder):
    """One layer of the original LMU.

        u[t] = encode(x[t]) + recall([h[t-1], m[t-1]])             one number
        m[t] = A m[t-1] + B u[t]                                   order numbers; A and B are fixed
        h[t] = tanh(project(x[t]) + mix([h[t-1], m[t]]))

    The input of the memory depends on the memory, so the pass goes step by step.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of h, which is the output.
        order: d, number of Legendre coefficients.
        window: number of steps that they describe.

    Attributes:
        encode: nn.Linear(D, 1); recall: nn.Linear(H + d, 1); project: nn.Linear(D, H); mix: nn.Linear(H + d, H); only
            the last but one has a bias.

    The state is (h, m): [B, H] and [B, d].

    Source: Voelker et al. 2019 (NeurIPS, Legendre Memory Units), equations 4, 6 and 7.
    """

    A: Tensor  # [d, d] float64
    B: Tensor  # [d] float64

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, order: Count = 16, window: Positive = 64.0) -> None:
        super().__init__()
        check_counts(order=order)
        self.input_size, self.output_size, self.order = input_size, hidden_size, order
        self.encode = nn.Linear(input_size, 1, bias=False)
        self.recall = nn.Linear(hidden_size + order, 1, bias=False)
        self.project = nn.Linear(input_size, hidden_size)
        self.mix = nn.Linear(hidden_size + order, hidden_size, bias=False)
        for part, fan in ((self.encode.weight, input_size), (self.recall.weight, hidden_size)):
            nn.init.uniform_(part, -((3 / fan) ** 0.5), (3 / fan) ** 0.5)
        nn.init.zeros_(self.recall.weight[:, hidden_size:])
        nn.init.xavier_normal_(self.project.weight)
        nn.init.xavier_normal_(self.mix.weight)
        A, B = make_legendre(order, window)
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("B", B, persistent=False)

    def initial_state(self, B: int) -> State:
        """(h, m): [B, H] and [B, d] zeros."""
        return self.zeros(B, self.output_size), self.zeros(B, self.order)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (h, m)."""
        self.check_input(x, start, state)
        h, m = (one(part) for part in parts(state, 2))
        u, p = self.encode(x).to(h.dtype), self.project(x).to(h.dtype)
        A, B, found = self.A.to(h.dtype).t(), self.B.to(h.dtype), []
        with full_precision(x):
            for t in range(len(x)):
                h, m = self._walk(u[t], p[t], wipe(h, start[t]), wipe(m, start[t]), A, B)
                found.append(h)
        return torch.stack(found), (h, m)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (h, m)."""
        h, m = (wipe(one(part), start) for part in parts(state, 2))
        u, p = self.encode(x).to(h.dtype), self.project(x).to(h.dtype)
        with full_precision(x):
            h, m = self._walk(u, p, h, m, self.A.to(h.dtype).t(), self.B.to(h.dtype))
        return h, (h, m)

    def _walk(self, u: Tensor, p: Tensor, h: Tensor, m: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """h and m after a step that reads u [B, 1] and p [B, H]."""
        u = u + self.recall(torch.cat([h, m], dim=-1))
        m = torch.addmm(u * B, m, A)
        return torch.tanh(p + self.mix(torch.cat([h, m], dim=-1))), m


@dataclass(frozen=True, kw_only=True)
class CoupledLMUOptions(Settings):
    """Options of the original LMU."""

    order: Count = 16  # Number of Legendre coefficients
    window: Positive = 64.0  # Steps that they describe


CELL = register(
    Cell(
        "coupled_lmu",
        CoupledLMU,
        about="The LMU of 2019: a Legendre window whose input also depends on the memory, step by step.",
        options=CoupledLMUOptions,
        output_is_memory=False,
        state_names=("h", "m"),
    )
)
