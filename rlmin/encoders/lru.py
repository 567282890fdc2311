"""LRU: a linear recurrence of complex numbers with constant decays and turns."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.scan import rotating_scan
from rlmin.scan.rotating import rotating_step
from rlmin.settings import Range, Settings, Share, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Phase = Annotated[float, Range(above=0, most=2 * math.pi)]
Radii = tuple[Share, Share]


class LRU(Encoder):
    """One layer of the linear recurrent unit.

        h[t] = a * h[t-1] + exp(log_gain) * input(x[t])                    a, h complex, [N]; N = hidden_size
        a    = exp(-exp(log_rate) + i * exp(log_phase))
        y[t] = output(h[t]) + skip(x[t])                                   output reads real and imaginary parts

    |a| < 1 for all parameters. Each gain starts at sqrt(1 - |a|^2), which makes h as large as its input, and is learned
    separately: tied to a, its gradient would be infinite at |a| = 1.

    Args:
        input_size: D, features of x.
        hidden_size: H = N, features of y and complex numbers of memory.
        radii: least and largest initial |a|, drawn uniformly over the area of the ring between them.
        phase: largest initial angle of a, in radians; angles are drawn uniformly from 0 up to it.

    Attributes:
        log_rate, log_phase, log_gain: [N]; input: nn.Linear(D, 2N); output: nn.Linear(2N, H); skip: nn.Linear(D, H).

    Raises:
        ValueError: radii that are not in order, or a largest one of 1.

    Source: Orvieto et al. 2023 (arXiv:2303.06349).
    """

    @checked
    def __init__(
        self, input_size: Size, hidden_size: Size, *, radii: Radii = (0.9, 0.999), phase: Phase = math.pi / 10
    ) -> None:
        super().__init__()
        least, most = check_radii(radii)
        self.input_size = input_size
        self.output_size = N = hidden_size
        square = torch.rand(N) * (most**2 - least**2) + least**2
        rate = -0.5 * square.clamp(min=1e-9).log()
        self.log_rate = nn.Parameter(rate.log())
        self.log_phase = nn.Parameter((phase * torch.rand(N).clamp(min=1e-4)).log())
        self.log_gain = nn.Parameter((-torch.expm1(-2 * rate)).sqrt().log())
        self.input = nn.Linear(input_size, 2 * N, bias=False)
        self.output = nn.Linear(2 * N, hidden_size)
        self.skip = nn.Linear(input_size, hidden_size, bias=False)
        nn.init.normal_(self.input.weight, std=(2 * input_size) ** -0.5)
        nn.init.normal_(self.output.weight, std=N**-0.5)

    def initial_state(self, B: int) -> Tensor:
        """[B, N, 2] zeros: pairs (real, imaginary)."""
        return self.zeros(B, self.output_size, 2)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, N, 2]."""
        self.check_input(x, start, state)
        before = one(state)
        with full_precision(x):
            h, last = rotating_scan(*self.transition(), self.written(x, before), before, start)
        return self.read(x, h), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, N, 2]."""
        before = wipe(one(state), start)
        with full_precision(x):
            h = rotating_step(*self.transition(), self.written(x, before), before)
        return self.read(x, h), h

    def transition(self) -> tuple[Tensor, Tensor]:
        """[N] |a| and the angle of a."""
        return torch.exp(-self.log_rate.exp()), self.log_phase.exp()

    def written(self, x: Tensor, like: Tensor) -> Tensor:
        """[..., N, 2] the term that x adds, in the precision of the memory."""
        pairs = self.input(x.to(self.input.weight.dtype)).to(like.dtype).unflatten(-1, (self.output_size, 2))
        written: Tensor = self.log_gain.exp()[:, None] * pairs
        return written

    def read(self, x: Tensor, h: Tensor) -> Tensor:
        """[..., H] of the memory [..., N, 2]."""
        y: Tensor = self.output(h.flatten(-2).to(x.dtype)) + self.skip(x)
        return y


def check_radii(radii: tuple[float, float]) -> tuple[float, float]:
    """`radii`, or a ValueError."""
    if not 0 <= radii[0] <= radii[1] < 1:
        raise ValueError(f"radii: expected 0 <= least <= largest < 1, got {radii}")
    return radii


def terms(mixer: LRU, x: Tensor) -> Terms:
    """h[t] = exp(-rate) * turn * h[t-1] + value, complex."""
    value = torch.view_as_complex(mixer.written(x, x))
    turn = torch.polar(torch.ones_like(mixer.log_phase), mixer.log_phase.exp())
    return Terms(mixer.log_rate.exp().expand(value.shape), value, turn)


def read(mixer: LRU, x: Tensor, memory: Tensor) -> Tensor:
    """The output, given the complex memory [..., N]."""
    return mixer.read(x, torch.view_as_real(memory))


@dataclass(frozen=True, kw_only=True)
class LRUOptions(Settings):
    """Options of LRU."""

    radii: Radii = (0.9, 0.999)  # Least and largest initial share that a step keeps
    phase: Phase = math.pi / 10  # Largest initial turn of a step, in radians

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radii(self.radii)


CELL = register(
    Cell(
        "lru",
        LRU,
        about="A linear recurrence of complex numbers: constant decays and turns, a fading spectrum of the past.",
        options=LRUOptions,
        terms=terms,
        read=read,
        pairs=True,
        is_bounded=False,
    )
)
