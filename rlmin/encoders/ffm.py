"""FFM, fast and forgetful memory: every feature is kept at several rates and frequencies at once."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.scan import rotating_scan
from rlmin.scan.boundary import carry_dtype
from rlmin.scan.rotating import rotating_step
from rlmin.settings import Count, Range, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Period = Annotated[float, Range(least=2)]


class FFM(Encoder):
    """One layer of fast and forgetful memory.

        S[t, i, j] = exp(-|rate[i]| + i * frequency[j]) * S[t-1, i, j] + seen[t, i]         complex, [traces, contexts]
        seen = input(x) * sigmoid(input_gate(x))
        y = norm(mix(real and imaginary parts of S)) * g + skip(x) * (1 - g),        g = sigmoid(output_gate(x))

    Few parameters and a fixed set of time scales: S shows both what was seen and how long ago. Rates begin evenly
    spread, the slowest with 1 % left after `longest` steps; frequencies begin at periods up to that.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        traces: number of features, each with a decay of its own.
        contexts: number of frequencies for each feature.
        longest: number of steps that the slowest trace remembers, and the longest period.

    Attributes:
        rate: [traces]; frequency: [contexts] radians a step.

    Source: Morad et al. 2023 (arXiv:2310.04128). Its closed form overflows float32 beyond 1024 steps; a scan does not.
    """

    @checked
    def __init__(
        self, input_size: Size, hidden_size: Size, *, traces: Count = 32, contexts: Count = 4, longest: Period = 1024.0
    ) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.input, self.input_gate = nn.Linear(input_size, traces), nn.Linear(input_size, traces)
        self.mix = nn.Linear(2 * traces * contexts, hidden_size)
        self.output_gate, self.skip = nn.Linear(input_size, hidden_size), nn.Linear(input_size, hidden_size)
        self.rate = nn.Parameter(torch.linspace(math.log(100) / longest, 0.5, traces))
        self.frequency = nn.Parameter(2 * math.pi / torch.linspace(2 if contexts > 1 else longest, longest, contexts))

    def initial_state(self, B: int) -> Tensor:
        """[B, traces, contexts, 2] zeros: pairs (real, imaginary)."""
        return self.zeros(B, len(self.rate), len(self.frequency), 2)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, traces, contexts, 2]."""
        self.check_input(x, start, state)
        S, last = rotating_scan(*self.parts(x), one(state), start)
        return self.read(x, S), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, traces, contexts, 2]."""
        with full_precision(x):
            S = rotating_step(*self.parts(x), wipe(one(state), start))
        return self.read(x, S), S

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decay [traces, 1], turn [contexts], and the new value, [..., traces, contexts, 2]."""
        seen = (self.input(x) * torch.sigmoid(self.input_gate(x))).to(carry_dtype(x))
        real = seen.unsqueeze(-1).expand(*seen.shape, len(self.frequency))
        return torch.exp(-self.rate.abs())[:, None], self.frequency, torch.stack([real, torch.zeros_like(real)], -1)

    def read(self, x: Tensor, S: Tensor) -> Tensor:
        """[..., H] of the memory [..., traces, contexts, 2]."""
        mixed, share = self.mix(S.flatten(-3).to(x.dtype)), torch.sigmoid(self.output_gate(x))
        y: Tensor = layer_norm(mixed, (self.output_size,)) * share + self.skip(x) * (1 - share)
        return y


def terms(mixer: FFM, x: Tensor) -> Terms:
    """S[t] = exp(-rate) * turn * S[t-1] + value, complex."""
    _, frequency, value = mixer.parts(x)
    rate = mixer.rate.abs()[:, None].expand(*value.shape[:-2], 1)
    return Terms(rate, torch.view_as_complex(value), torch.polar(torch.ones_like(frequency), frequency))


def read(mixer: FFM, x: Tensor, memory: Tensor) -> Tensor:
    """The output, given the complex memory [..., traces, contexts]."""
    return mixer.read(x, torch.view_as_real(memory))


@dataclass(frozen=True, kw_only=True)
class FFMOptions(Settings):
    """Options of FFM."""

    traces: Count = 32  # Number of features, each with a decay of its own
    contexts: Count = 4  # Number of frequencies for each feature
    longest: Period = 1024.0  # Number of steps that the slowest trace remembers, and the longest period


CELL = register(
    Cell(
        "ffm",
        FFM,
        about="Fast and forgetful memory: features kept at fixed rates and frequencies, with few parameters.",
        options=FFMOptions,
        terms=terms,
        read=read,
        pairs=True,
        is_bounded=False,
    )
)
