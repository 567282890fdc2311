"""Mamba: a selective state space (S6), whose step size, input and output maps depend on the input."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from rlmin.encoders.base import Encoder, check_counts, one, wipe
from rlmin.encoders.cell import Cell, Terms, register
from rlmin.scan import linear_scan
from rlmin.scan.dispatch import runs_loops
from rlmin.settings import Count, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

SHORTEST, LONGEST = 1e-3, 0.1
"""Range of the initial step sizes, drawn log-uniformly."""


class Mamba(Encoder):
    """One layer of S6, without the convolution, which a `Stack` has.

        u[t], z[t] = projection(x[t]);   u = silu(u);   s, b[t], c[t] = select(u[t]);   dt[t] = softplus(step_size(s))
        h[t] = exp(-dt[t] A) * h[t-1] + dt[t] * u[t] b[t]'          per channel of u and state; signed: 2 exp(-dt A) - 1
        y[t] = output((h[t] c[t] + skip * u[t]) * silu(z[t]))

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        expand: number of channels of u in units of H, E = expand * H.
        states: N, size of the memory of each channel.
        signed: whether decays lie in (-1, 1) instead of (0, 1), so that a state can change its sign.

    Attributes:
        projection: nn.Linear(D, 2E) and output: nn.Linear(E, H), without bias.
        select: nn.Linear(E, R + 2N) without bias, R = ceil(H / 16); step_size: nn.Linear(R, E).
        log_rate: [E, N], log A, 1..N at first; skip: [E].

    The state is h, [B, E, N].

    Source: Gu and Dao 2023 (arXiv:2312.00752), algorithm 2 and section 3.4. Signs: Grazzi et al. 2024
    (arXiv:2411.12537).
    """

    @checked
    def __init__(
        self, input_size: Size, hidden_size: Size, *, expand: Count = 2, states: Count = 16, signed: bool = False
    ) -> None:
        super().__init__()
        check_counts(expand=expand, states=states)
        self.input_size, self.output_size = input_size, hidden_size
        self.channels, self.states, self.signed = expand * hidden_size, states, signed
        rank = -(-hidden_size // 16)
        self.projection = nn.Linear(input_size, 2 * self.channels, bias=False)
        self.select = nn.Linear(self.channels, rank + 2 * states, bias=False)
        self.step_size = nn.Linear(rank, self.channels)
        self.log_rate = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(self.channels, 1))
        self.skip = nn.Parameter(torch.ones(self.channels))
        self.output = nn.Linear(self.channels, hidden_size, bias=False)
        nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
        low, high = math.log(SHORTEST), math.log(LONGEST)
        with torch.no_grad():  # softplus(bias) = dt
            self.step_size.bias.copy_(torch.empty(self.channels).uniform_(low, high).exp().expm1().log())

    def initial_state(self, B: int) -> Tensor:
        """[B, E, N] zeros."""
        return self.zeros(B, self.channels, self.states)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, E, N]."""
        self.check_input(x, start, state)
        before = one(state)
        if runs_loops(x) and x.numel():
            from rlmin.kernels.selective import selective_scan  # needs numba, which runs_loops has found

            u, z, dt, value, b, c = self._inputs(x, before.dtype)
            rate = self.log_rate.to(before.dtype).exp()
            y, last = selective_scan(dt, value, b, c.to(before.dtype), rate, before, start, signed=self.signed)
            return self._put_out(y, u, z), last
        u, z, rate, value, c = self.parts(x, before.dtype)
        h, last = linear_scan(self.keep(rate), value, before, start)
        return self.read(h, u, z, c), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, E, N]."""
        before = wipe(one(state), start)
        u, z, rate, value, c = self.parts(x, before.dtype)
        h = torch.addcmul(value, self.keep(rate), before)
        return self.read(h, u, z, c), h

    def parts(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """u, z [..., E]; dt A and the new value [..., E, N], in `dtype`; c [..., N]."""
        u, z, dt, value, b, c = self._inputs(x, dtype)
        rate = dt.unsqueeze(-1) * self.log_rate.to(dtype).exp()
        return u, z, rate, value.unsqueeze(-1) * b.unsqueeze(-2), c

    def _inputs(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """u, z [..., E]; dt and dt * u [..., E] and b [..., N] in `dtype`; c [..., N]."""
        u, z = self.projection(x).chunk(2, dim=-1)
        u = silu(u)
        small, b, c = self.select(u).split([self.step_size.in_features, self.states, self.states], dim=-1)
        dt = softplus(self.step_size(small).to(dtype))
        return u, z, dt, dt * u.to(dtype), b.to(dtype), c

    def keep(self, rate: Tensor) -> Tensor:
        """The decay."""
        return 2 * torch.exp(-rate) - 1 if self.signed else torch.exp(-rate)

    def read(self, h: Tensor, u: Tensor, z: Tensor, c: Tensor) -> Tensor:
        """y [..., H], given the memory and the other parts of the step."""
        return self._put_out((h @ c.to(h.dtype).unsqueeze(-1)).squeeze(-1), u, z)

    def _put_out(self, found: Tensor, u: Tensor, z: Tensor) -> Tensor:
        y: Tensor = self.output((found.to(u.dtype) + self.skip * u) * silu(z))
        return y


@dataclass(frozen=True, kw_only=True)
class MambaOptions(Settings):
    """Options of Mamba."""

    expand: Count = 2  # Number of channels in units of the width
    states: Count = 16  # Size of the memory of each channel
    signed: bool = False  # Whether a state can change its sign: decays in (-1, 1) instead of (0, 1)


def terms(mixer: Mamba, x: Tensor) -> Terms:
    """keep = exp(-dt A), or 2 exp(-dt A) - 1; value = dt * u b'."""
    _, _, rate, value, _ = mixer.parts(x, x.dtype)
    if not mixer.signed:
        return Terms(rate, value)
    less = 2 * torch.expm1(-rate)  # keep - 1
    return Terms(torch.where(less > -1, -torch.log1p(less), -torch.log(-1 - less)), value, torch.sign(mixer.keep(rate)))


def read(mixer: Mamba, x: Tensor, memory: Tensor) -> Tensor:
    """The output of a layer, given its memory."""
    u, z, _, _, c = mixer.parts(x, x.dtype)
    return mixer.read(memory, u, z, c)


CELL = register(
    Cell(
        "mamba",
        Mamba,
        about="A selective state space: step size, input and output maps depend on the input.",
        options=MambaOptions,
        terms=terms,
        read=read,
        is_bounded=False,
    )
)
