"""DeltaNet: a matrix memory that replaces what a key holds, instead of adding to it."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu, softplus

from rlmin.encoders.base import Encoder, full_precision, one
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads, size_of_head
from rlmin.encoders.matrix_memory import GatedOutput, in_shape
from rlmin.encoders.time_scale import inverse_softplus
from rlmin.scan import outer_scan
from rlmin.scan.boundary import carry_dtype
from rlmin.scan.outer import act
from rlmin.settings import Count, Range, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Decay: TypeAlias = Literal["none", "head", "key"]
Products: TypeAlias = Annotated[int, Range(least=1, most=8)]


class DeltaNet(Encoder):
    """One layer of DeltaNet, with one or several writes a step.

        P = decay[t] * S[t-1]                                                       [K, V] per head
        P = P + write[t, i] * key[t, i] (value[t, i] - P' key[t, i])'               for i = 1 ... products
        S[t] = P,    y[t] = output(rms(S[t]' query[t]) * silu(gate(x[t])))

    Keys and queries have length 1 and write is a share in (0, 1), or with `negative` in (0, 2), so S cannot explode. At
    2 a write reflects. One reflection a step can count modulo two (parity); a product of two rotates, so it can count
    modulo three.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; K = V = hidden_size / heads, rounded up.
        decay: "none" (DeltaNet), "head" (gated), or "key": one for each key feature (Kimi's).
        products: writes a step.
        negative: shares up to 2: transitions with negative eigenvalues.

    Attributes:
        query: nn.Linear(D, heads * K); written: nn.Linear(D, products * heads * (K + V)); share: nn.Linear(D,
        products * heads); decays: nn.Linear(D, heads or heads * K), of softplus(decays(x)) * exp(log_rate).

    The short convolutions of the papers are the convolution of the `Stack`.

    Source: Schlag et al. 2021 (arXiv:2102.11174), Yang et al. 2024 (arXiv:2406.06484; gated, arXiv:2412.06464), Kimi
    2025 (arXiv:2510.26692), Siems et al. 2025 (products, arXiv:2502.10297), Grazzi et al. 2024 (arXiv:2411.12537).
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        heads: Count = 4,
        decay: Decay = "head",
        products: Products = 1,
        negative: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, size_of_head(hidden_size, heads)
        self.products, self.most = products, 2.0 if negative else 1.0
        self.query = nn.Linear(input_size, heads * self.size, bias=False)
        self.written = nn.Linear(input_size, products * heads * 2 * self.size, bias=False)
        self.share = nn.Linear(input_size, products * heads)
        count = {"none": 0, "head": 1, "key": self.size}[decay]
        self.decays = nn.Linear(input_size, heads * count) if count else None
        if self.decays is not None:
            self.log_rate = nn.Parameter(torch.linspace(1, 16, heads).log())
            with torch.no_grad():
                self.decays.bias.copy_(inverse_softplus(torch.logspace(-3, -1, heads * count)))
        self.head_output = GatedOutput(input_size, heads, self.size, hidden_size)

    def initial_state(self, B: int) -> Tensor:
        """[B, heads, K, V] zeros."""
        return self.zeros(B, self.heads, self.size, self.size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, heads, K, V]; every write is a step of the scan."""
        self.check_input(x, start, state)
        n, (query, key, value, share, g) = self.products, self.parts(x)
        nothing = query.new_zeros(())
        first = (torch.arange(n * len(x), device=x.device) % n == 0).view(-1, 1)
        query, start = query.repeat_interleave(n, 0), start.repeat_interleave(n, 0) & first
        if g is not None:
            g = torch.where(first.view(-1, *[1] * (g.dim() - 1)), g.repeat_interleave(n, 0), nothing)
        key, value, share = (
            part.movedim(-1 - axes, 1).flatten(0, 1) for part, axes in ((key, 2), (value, 2), (share, 1))
        )
        y, last = outer_scan(query, key, value, g, one(state), start, write=share)
        return self.head_output(x, y[n - 1 :: n]), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, heads, K, V]."""
        query, key, value, share, g = self.parts(x)
        S, y, fresh = one(state), query, start
        with full_precision(x):
            for i in range(self.products):
                k, v, write = key[:, i], value[:, i], share[:, i]
                y, S = act(query, k, v, g if i == 0 else None, S, fresh, write=write)
                fresh = torch.zeros_like(start)
        return self.head_output(x, y), S

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Query [..., heads, K]; key, value, share [..., products, heads, K or V or none]; log decay or None."""
        carry, heads, size, n = carry_dtype(x), self.heads, self.size, self.products
        query = in_shape(self.query(x).to(carry), heads, size)
        key, value = in_shape(silu(self.written(x).to(carry)), n, heads, 2 * size).chunk(2, -1)
        share = self.most * torch.sigmoid(in_shape(self.share(x).to(carry), n, heads))
        return unit(silu(query)), unit(key), value, share, self._log_decay(x)

    def _log_decay(self, x: Tensor) -> Tensor | None:
        if self.decays is None:
            return None
        count = self.decays.out_features // self.heads
        rate = softplus(in_shape(self.decays(x).to(carry_dtype(x)), self.heads, count)) * self.log_rate.exp()[:, None]
        return -rate.squeeze(-1) if count == 1 else -rate


def unit(x: Tensor) -> Tensor:
    """x at length 1 along its last axis; a vector of zeros stays one."""
    return normalize(x, dim=-1, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class DeltaOptions(Settings):
    """Options of DeltaNet."""

    heads: Heads = 4  # Number of heads
    decay: Decay = "head"  # Units that share a decay: none decays, a whole head, or each key feature on its own
    products: Products = 1  # Number of writes a step
    negative: bool = False  # Whether a write may overshoot: negative eigenvalues, which parity needs


CELL = register(
    Cell(
        "delta_net",
        DeltaNet,
        about="A matrix per head in which a key's old value is replaced: plain, gated, or several writes a step.",
        options=DeltaOptions,
        output_is_memory=False,
        is_bounded=False,
    )
)
