"""sLSTM: an LSTM with exponential gates, whose scale travels in the state, row by row."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlmin.encoders.base import Encoder, full_precision, one, parts, wipe
from rlmin.encoders.block_diagonal import multiply_blocks
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads, size_of_head
from rlmin.settings import Count, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

FORGET = (3.0, 6.0)
"""Range of the initial forget biases, spread over the units: memories of 20 to 400 steps."""


class SLSTM(Encoder):
    """One layer of sLSTM.

        i, f, z, o = projection(x[t]) + recurrence(h[t-1])          recurrence: block-diagonal, heads blocks
        c[t] = sigmoid(f) c[t-1] + exp(i) tanh(z)
        n[t] = sigmoid(f) n[t-1] + exp(i)
        h[t] = sigmoid(o) c[t] / n[t]

    c and n are kept in units of exp(m), m[t] = max(log sigmoid(f) + m[t-1], i), so no exponent is above 0. n = 0 means
    that the row has seen nothing, and its m counts as -inf; from the first step on n is at least 1.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: blocks of the recurrence; each has hidden_size / heads units, rounded up.

    Attributes:
        projection: nn.Linear(D, 4R), rows [i; f; z; o]; R = heads * size units.
        recurrence: [heads, size, 4 size], zeros at first.
        output: nn.Linear(R, H).

    The state is (h, c, n, m), [B, R] each; no gradient passes through m, which is a choice of scale.

    Source: Beck et al. 2024 (arXiv:2405.04517), equations 8 to 18, with the sigmoid as forget gate.
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, heads: Count = 4) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, size_of_head(hidden_size, heads)
        self.units = heads * self.size
        self.projection = nn.Linear(input_size, 4 * self.units)
        self.recurrence = nn.Parameter(torch.zeros(heads, self.size, 4 * self.size))
        self.output = nn.Linear(self.units, hidden_size)
        with torch.no_grad():
            self.projection.bias[self.units : 2 * self.units] = torch.linspace(*FORGET, self.units)

    def initial_state(self, B: int) -> State:
        """(h, c, n, m): [B, R] zeros each."""
        return tuple(self.zeros(B, self.units) for _ in range(4))

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (h, c, n, m)."""
        self.check_input(x, start, state)
        held = [one(part) for part in parts(state, 4)]
        projected, found = self.projection(x).to(held[0].dtype), []
        with full_precision(x):
            for t in range(len(x)):
                held = self._walk(projected[t], [wipe(part, start[t]) for part in held])
                found.append(held[0])
        y: Tensor = self.output(torch.stack(found).to(x.dtype))
        return y, tuple(held)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (h, c, n, m)."""
        held = [wipe(one(part), start) for part in parts(state, 4)]
        projected = self.projection(x).to(held[0].dtype)
        with full_precision(x):
            held = self._walk(projected, held)
        y: Tensor = self.output(held[0].to(x.dtype))
        return y, tuple(held)

    def _walk(self, projected: Tensor, held: list[Tensor]) -> list[Tensor]:
        """h, c, n and m after a step; projected [B, 4R]."""
        h, c, n, m = held
        again = multiply_blocks(h, self.recurrence.to(h.dtype)).view(-1, self.heads, 4, self.size)
        gates = projected.view(-1, 4, self.heads, self.size) + again.transpose(1, 2)
        i, f, z, o = gates.flatten(2).unbind(1)
        kept = logsigmoid(f) + m.detach().masked_fill(n == 0, -torch.inf)
        largest = torch.maximum(kept, i).detach()
        keep, write = torch.exp(kept - largest), torch.exp(i - largest)
        c = torch.addcmul(keep * c, write, torch.tanh(z))
        n = torch.addcmul(write, keep, n)
        return [torch.sigmoid(o) * c / n, c, n, largest]


@dataclass(frozen=True, kw_only=True)
class SLSTMOptions(Settings):
    """Options of sLSTM."""

    heads: Heads = 4  # Number of blocks of the recurrence


CELL = register(
    Cell(
        "slstm",
        SLSTM,
        about="An LSTM with exponential gates and a normaliser, step by step: a new input can take over the memory.",
        options=SLSTMOptions,
        output_is_memory=False,
        state_names=("h", "c", "n", "m"),
    )
)
