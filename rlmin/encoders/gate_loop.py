"""GateLoop: a linear recurrence of complex numbers whose decays and turns depend on the input."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.encoders.root_mean_square import RootMeanSquare
from rlmin.encoders.time_scale import spread_bias
from rlmin.scan import rotating_scan
from rlmin.scan.boundary import carry_dtype
from rlmin.scan.rotating import rotating_step
from rlmin.settings import Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class GateLoop(Encoder):
    """One layer of GateLoop with a head for each feature.

        h[t] = a[t] * h[t-1] + key[t] * value[t]                       a, h complex, [H]
        a[t] = sigmoid(keep[t]) * exp(i * turn[t])
        y[t] = output(norm(real(query[t] * h[t])) * silu(gate(x[t])))

    query, key, value, keep and turn are linear in x. Decays begin at 2 to 256 steps, spread over the features. Turns
    begin at 0, as others have large gradients over a long episode.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y and complex numbers of memory.

    Attributes:
        projection: nn.Linear(D, 3H), rows [query; key; value]; transition: nn.Linear(D, 2H), rows [keep; turn].

    Source: Katsch 2023 (arXiv:2311.01927).
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.projection = nn.Linear(input_size, 3 * hidden_size, bias=False)
        self.transition = nn.Linear(input_size, 2 * hidden_size)
        self.norm = RootMeanSquare(hidden_size)
        self.gate = nn.Linear(input_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size)
        with torch.no_grad():
            self.transition.weight[hidden_size:] *= 0.1
            self.transition.bias[hidden_size:] = 0
            self.transition.bias[:hidden_size] = -spread_bias(hidden_size, (2.0, 256.0))

    def initial_state(self, B: int) -> Tensor:
        """[B, H, 2] zeros: pairs (real, imaginary)."""
        return self.zeros(B, self.output_size, 2)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, H, 2]."""
        self.check_input(x, start, state)
        query, decay, turn, value = self.parts(x)
        h, last = rotating_scan(decay, turn, value, one(state), start)
        return self.read(x, query, h), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, H, 2]."""
        query, decay, turn, value = self.parts(x)
        with full_precision(x):
            h = rotating_step(decay, turn, value, wipe(one(state), start))
        return self.read(x, query, h), h

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, decay and turn [..., H], and the new value, [..., H, 2], whose imaginary part is 0."""
        carry = carry_dtype(x)
        query, key, value = self.projection(x).to(carry).chunk(3, -1)
        keep, turn = self.transition(x).to(carry).chunk(2, -1)
        added = key * value
        return query, torch.sigmoid(keep), turn, torch.stack([added, torch.zeros_like(added)], -1)

    def read(self, x: Tensor, query: Tensor, h: Tensor) -> Tensor:
        """[..., H] of the memory [..., H, 2]."""
        seen = self.norm((query * h[..., 0]).to(x.dtype))
        y: Tensor = self.output(seen * silu(self.gate(x)))
        return y


def terms(mixer: GateLoop, x: Tensor) -> Terms:
    """h[t] = exp(-rate) * turn * h[t-1] + value, complex."""
    _, _, turn, value = mixer.parts(x)
    rate = softplus(-mixer.transition(x).chunk(2, -1)[0])
    return Terms(rate, torch.view_as_complex(value), torch.polar(torch.ones_like(turn), turn))


def read(mixer: GateLoop, x: Tensor, memory: Tensor) -> Tensor:
    """The output, given the complex memory [..., H]."""
    return mixer.read(x, mixer.parts(x)[0], torch.view_as_real(memory))


CELL = register(
    Cell(
        "gate_loop",
        GateLoop,
        about="A linear recurrence of complex numbers whose decays and turns depend on the input.",
        terms=terms,
        read=read,
        pairs=True,
        is_bounded=False,
    )
)
