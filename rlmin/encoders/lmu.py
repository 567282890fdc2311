"""LMU in parallel: a window of the input as Legendre polynomials, computed a chunk of steps at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, check_counts, full_precision, one, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.legendre import make_legendre
from rlmin.settings import Count, Positive, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

CHUNK = 16
"""Number of steps computed at once."""


class LMU(Encoder):
    """One layer of the parallel LMU.

        u[t] = encode(x[t])                                        channels numbers
        m[t] = A m[t-1] + B u[t]                                   of each channel, order numbers; A and B are fixed
        y[t] = tanh(output([x[t], m[t]]))

    The memory does not reach u, so m is a convolution of u. Within a chunk it is a product with powers of A, in which
    steps of other episodes have no weight; the state passes from chunk to chunk.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        channels: C, number of features of a step that enter the memory.
        order: d, number of Legendre coefficients per channel.
        window: number of steps that the coefficients describe.

    Attributes:
        encode: nn.Linear(D, C); output: nn.Linear(D + C d, H).

    The state is m, [B, C, d].

    Source: Chilkuri and Eliasmith 2021 (arXiv:2102.11417), equations 18 to 20.
    """

    powers: Tensor  # [1 + CHUNK, d, d] float64, A**k
    kernel: Tensor  # [CHUNK, d] float64, A**k B

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        channels: Count = 8,
        order: Count = 16,
        window: Positive = 64.0,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, order=order)
        self.input_size, self.output_size = input_size, hidden_size
        self.channels, self.order = channels, order
        self.encode = nn.Linear(input_size, channels)
        self.output = nn.Linear(input_size + channels * order, hidden_size)
        A, B = make_legendre(order, window)
        powers = torch.stack([torch.linalg.matrix_power(A, k) for k in range(CHUNK + 1)])
        self.register_buffer("powers", powers, persistent=False)
        self.register_buffer("kernel", powers[:CHUNK] @ B, persistent=False)

    def initial_state(self, B: int) -> Tensor:
        """[B, C, d] zeros."""
        return self.zeros(B, self.channels, self.order)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, C, d]."""
        self.check_input(x, start, state)
        m = one(state)
        u, found = self.encode(x).to(m.dtype), []
        with full_precision(x):
            for first in range(0, len(x), CHUNK):
                found.append(self._chunk(u[first : first + CHUNK], m, start[first : first + CHUNK]))
                m = found[-1][-1]
        return self.read(x, torch.cat(found)), m

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, C, d]."""
        before = wipe(one(state), start)
        u = self.encode(x).to(before.dtype)
        with full_precision(x):
            m = before @ self.powers[1].to(before.dtype).t() + u.unsqueeze(-1) * self.kernel[0].to(before.dtype)
        return self.read(x, m), m

    def read(self, x: Tensor, m: Tensor) -> Tensor:
        """y [..., H] of x [..., D] and the memory [..., C, d]."""
        return torch.tanh(self.output(torch.cat([x, m.flatten(-2).to(x.dtype)], dim=-1)))

    def _chunk(self, u: Tensor, m: Tensor, start: Tensor) -> Tensor:
        """m after each of n steps, [n, B, C, d]; u [n, B, C], m [B, C, d] before them, start [n, B]."""
        n, episode = len(u), start.cumsum(0)
        lag = torch.arange(n, device=u.device).unsqueeze(1) - torch.arange(n, device=u.device)
        seen = (episode.unsqueeze(1) == episode) & (lag >= 0).unsqueeze(-1)  # [n, n, B]: step j by step i
        weight = self.kernel[lag.clamp(min=0)].to(u.dtype)  # [n, n, d]
        weight = weight * seen.permute(2, 0, 1).unsqueeze(-1)  # [B, n, n, d]
        written = weight.transpose(2, 3).flatten(1, 2) @ u.transpose(0, 1)  # [B, n d, C]
        written = written.view(-1, n, self.order, self.channels).permute(1, 0, 3, 2)
        left = torch.einsum("nde,bce->nbcd", self.powers[1 : n + 1].to(m.dtype), wipe(m, start[0]))
        return written + left.masked_fill((episode > 0)[..., None, None], 0)


@dataclass(frozen=True, kw_only=True)
class LMUOptions(Settings):
    """Options of the parallel LMU."""

    channels: Count = 8  # Number of features of a step that enter the memory
    order: Count = 16  # Number of Legendre coefficients per channel
    window: Positive = 64.0  # Number of steps that the coefficients describe


CELL = register(
    Cell(
        "lmu",
        LMU,
        about="A window of the input as Legendre polynomials: a fixed linear system, trained in parallel over time.",
        options=LMUOptions,
        output_is_memory=False,
        state_names=("m",),
        is_bounded=False,
    )
)
