"""RG-LRU, the recurrence of Hawk: a gate scales the rate of decay, and the input is scaled to match."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from rlmin.encoders.base import Encoder, one, parts, wipe
from rlmin.encoders.block_diagonal import multiply_blocks
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.encoders.decays import Decay, Decays
from rlmin.encoders.heads import Heads, size_of_head
from rlmin.encoders.time_scale import Spread, TimeScales, spread_time_constants
from rlmin.scan import linear_scan
from rlmin.settings import Count, Settings, Share, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

REACH = 8.0
"""The paper's c: the rate at an open gate, in units of the decays."""
LEAST = 1e-6  # of 1 - a**2: the slope of its square root stays below 500


class RGLRU(Encoder):
    """One recurrent block of Hawk, without the convolution, which a `Stack` has.

        u[t], v[t] = projection(x[t]);      r[t], i[t] = sigmoid(gates(u[t]))       gates: block-diagonal, heads blocks
        a[t] = exp(-8 r[t] decays)
        h[t] = a[t] * h[t-1] + sqrt(1 - a[t]**2) * i[t] * u[t]      the first of an episode: h[t] = i[t] * u[t]
        y[t] = output(h[t] * gelu(v[t]))

    The root keeps the variance of h equal to that of its input. The first input of an episode replaces nothing, so it
    is not scaled.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: blocks of the gates; each has hidden_size / heads units, rounded up.
        time_scales: (shortest, longest) memory of the units at r = 1/2, in steps, spread log-uniformly. The paper draws
            a**8 from [0.9, 0.999], which is 10 to 1000 steps at r = 1.
        decay: function from a weight to a rate of forgetting, see `Decays`; "softplus" is the paper's.
        slow_units: share of the units that begin 100 times as slow as the longest.

    Attributes:
        projection: nn.Linear(D, 2R), rows [u; v]; R = heads * size units.
        gate: [heads, size, 2 size] and gate_bias: [heads, 2 size], columns [r; i].
        decays: `Decays` of R units; output: nn.Linear(R, H).

    The state is (h, seen): [B, R], and [B], which is 0 before the first step of an episode.

    Raises:
        ValueError: fewer than one head, an unknown decay, or time scales in the wrong order.

    Source: De et al. 2024 (arXiv:2402.19427), section 2.4; resets as in recurrentgemma.
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        heads: Count = 4,
        time_scales: TimeScales = (2.0, 256.0),
        decay: Decay = "softplus",
        slow_units: Share = 0.0,
    ) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, size_of_head(hidden_size, heads)
        units = heads * self.size
        self.projection = nn.Linear(input_size, 2 * units)
        self.gate = nn.Parameter(torch.randn(heads, self.size, 2 * self.size) * self.size**-0.5)
        self.gate_bias = nn.Parameter(torch.zeros(heads, 2 * self.size))
        tau = spread_time_constants(units, (2.0, 256.0) if time_scales is None else time_scales, slow_units)
        self.decays = Decays(2 / (REACH * tau), decay)
        self.output = nn.Linear(units, hidden_size)

    def initial_state(self, B: int) -> State:
        """(h, seen): [B, R] and [B] zeros."""
        return self.zeros(B, self.heads * self.size), self.zeros(B)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (h, seen)."""
        self.check_input(x, start, state)
        before, seen = (one(part) for part in parts(state, 2))
        rate, value, first, v = self.parts(x, before.dtype)
        opens = torch.cat([start[:1] | (seen == 0), start[1:]]).unsqueeze(-1)
        h, last = linear_scan(torch.exp(-rate), torch.where(opens, first, value), before, start)
        return self.write(h, v), (last, torch.ones_like(seen))

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (h, seen)."""
        before, seen = (wipe(one(part), start) for part in parts(state, 2))
        rate, value, first, v = self.parts(x, before.dtype)
        value = torch.where((seen == 0).unsqueeze(-1), first, value)
        h = torch.addcmul(value, torch.exp(-rate), before)
        return self.write(h, v), (h, torch.ones_like(seen))

    def parts(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-log a and the new value, both [..., R] in `dtype`; the new value at the start of an episode; and v."""
        u, v = self.projection(x).chunk(2, dim=-1)
        gates = multiply_blocks(u, self.gate) + self.gate_bias
        r, i = torch.sigmoid(gates.to(dtype)).chunk(2, dim=-1)
        rate = REACH * r.flatten(-2) * self.decays().to(dtype)
        first = i.flatten(-2) * u.to(dtype)
        return rate, (-torch.expm1(-2 * rate)).clamp(min=LEAST).sqrt() * first, first, v

    def write(self, h: Tensor, v: Tensor) -> Tensor:
        """y [..., H] of the memory and v [..., R]."""
        y: Tensor = self.output(h.to(v.dtype) * gelu(v))
        return y


@dataclass(frozen=True, kw_only=True)
class RGLRUOptions(Settings):
    """Options of RG-LRU."""

    heads: Heads = 4  # Number of blocks of the gates
    time_scales: Spread | None = (2.0, 256.0)  # Range of steps that the units remember at first
    decay: Decay = "softplus"  # Function from a weight to a rate of forgetting
    slow_units: Share = 0.0  # Share of the units that remember 100 times as long as the longest at first


def terms(mixer: RGLRU, x: Tensor) -> Terms:
    """keep = a, value = sqrt(1 - a**2) * i * u."""
    rate, value, first, _ = mixer.parts(x, x.dtype)
    return Terms(rate, value, opening=first)


def read(mixer: RGLRU, x: Tensor, memory: Tensor) -> Tensor:
    """The output of a layer, given its memory."""
    return mixer.write(memory, mixer.projection(x).chunk(2, dim=-1)[1])


CELL = register(
    Cell(
        "rg_lru",
        RGLRU,
        about="The recurrence of Hawk and Griffin: a gated decay and an input scaled to match.",
        options=RGLRUOptions,
        terms=terms,
        read=read,
        output_is_memory=False,
        state_names=("h", "seen"),
    )
)
