"""SHM, the stable Hadamard memory: a matrix whose every entry has a decay of its own."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, check_counts, one, wipe
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.scan import linear_scan
from rlmin.settings import Count, Range, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Largest = Annotated[float, Range(above=0, most=2)]


class SHM(Encoder):
    """One layer of SHM, in the form that its published results were computed with.

        v[t], k[t], q[t], g[t], s[t] = projection(x[t])             k and q: relu, then divided by 1e-5 + their sum
        C[t] = min(1 + tanh(row g[t]'), largest)
        M[t] = C[t] * M[t-1] + sigmoid(s[t]) v[t] k[t]'             elementwise, [size, size]
        y[t] = output(M[t] q[t])

    The paper draws `row` from a learned table at every step, so that products of C stay near 1. The published code
    always takes the first row, as its draw is rounded down to 0. So does this cell, and one step equals one pass. C
    then lies in (0, 2), and a memory can grow without bound: 128 steps at 2 overflow float32. `largest=1` prevents
    that.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        size: rows and columns of the memory.
        largest: bound of an entry's factor, at most 2; 2 is the published form.

    Attributes:
        projection: nn.Linear(D, 4 size + 1) without bias; row: [size]; output: nn.Linear(size, H).

    The state is M, [B, size, size].

    Source: Le et al. 2024 (arXiv:2410.10132) and its code.
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, size: Count = 24, largest: Largest = 2.0) -> None:
        super().__init__()
        check_counts(size=size)
        self.input_size, self.output_size = input_size, hidden_size
        self.size, self.largest = size, largest
        self.projection = nn.Linear(input_size, 4 * size + 1, bias=False)
        self.row = nn.Parameter(torch.randn(size) * size**-0.5)
        self.output = nn.Linear(size, hidden_size)

    def initial_state(self, B: int) -> Tensor:
        """[B, size, size] zeros."""
        return self.zeros(B, self.size, self.size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, size, size]."""
        self.check_input(x, start, state)
        before = one(state)
        keep, value, q = self.parts(x, before.dtype)
        M, last = linear_scan(keep, value, before, start)
        return self.read(M, q), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, size, size]."""
        before = wipe(one(state), start)
        keep, value, q = self.parts(x, before.dtype)
        M = torch.addcmul(value, keep, before)
        return self.read(M, q), M

    def parts(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """C and the new value [..., size, size], in `dtype`; q [..., size]."""
        v, k, q, g, s = self.projection(x).split([self.size] * 4 + [1], dim=-1)
        k, q = (part.relu() / (1e-5 + part.relu().sum(-1, keepdim=True)) for part in (k, q))
        keep = (1 + torch.tanh(self.row.to(dtype).unsqueeze(-1) * g.to(dtype).unsqueeze(-2))).clamp(max=self.largest)
        written = (torch.sigmoid(s) * v).to(dtype)
        return keep, written.unsqueeze(-1) * k.to(dtype).unsqueeze(-2), q

    def read(self, M: Tensor, q: Tensor) -> Tensor:
        """y [..., H] of the memory and q [..., size]."""
        y: Tensor = self.output((M @ q.to(M.dtype).unsqueeze(-1)).squeeze(-1).to(q.dtype))
        return y


@dataclass(frozen=True, kw_only=True)
class SHMOptions(Settings):
    """Options of SHM."""

    size: Count = 24  # Number of rows and columns of the memory
    largest: Largest = 2.0  # Bound of the factor of an entry at a step; 1 keeps the memory bounded


def terms(mixer: SHM, x: Tensor) -> Terms:
    """keep = C, which may be above 1; value = sigmoid(s) v k'."""
    keep, value, _ = mixer.parts(x, x.dtype)
    return Terms(-keep.log(), value)


def read(mixer: SHM, x: Tensor, memory: Tensor) -> Tensor:
    """The output of a layer, given its memory."""
    return mixer.read(memory, mixer.parts(x, x.dtype)[2])


CELL = register(
    Cell(
        "shm",
        SHM,
        about="A matrix whose every entry has a decay of its own, in its published constant-row form.",
        options=SHMOptions,
        terms=terms,
        read=read,
        is_bounded=False,
    )
)
