"""Gated linear attention: a matrix that decays, with outer products of keys and values added to it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu, softplus

from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import Heads
from rlmin.encoders.matrix_memory import GatedOutput, MatrixMemory, Parts, in_shape, read, terms
from rlmin.encoders.time_scale import inverse_softplus, spread_bias
from rlmin.scan.boundary import carry_dtype
from rlmin.settings import Count, Settings, Size
from rlmin.settings.boundary import checked

Form: TypeAlias = Literal["gla", "retnet", "hgrn2", "mamba2", "mlstm"]
GATES = {"gla": "key", "hgrn2": "key", "retnet": "none", "mamba2": "head", "mlstm": "head and input"}
"""The sizes of the gates of a head, by form."""


class GatedLinear(MatrixMemory):
    """One layer of gated linear attention, in one of five forms.

        S[t] = decay[t] * S[t-1] + key[t] value[t]'                       [K, V] per head, decay over its rows
        y[t] = output(rms(S[t]' query[t]) * silu(gate(x[t])))

    form        decay                                   key and query
    gla         sigmoid(g)^(1/16) per key feature       linear
    retnet      1 - 2^(-5 - head), constant             linear; no rotation by position
    hgrn2       sigmoid(g) per key feature              key = 1 - decay, query = silu(linear)
    mamba2      exp(-dt * a) per head                   dt * silu(linear), silu(linear), the same for all heads; the
                                                        value is silu(linear) too and skips to y, with a weight per head
    mlstm       sigmoid(g) per head                     key = sigmoid(i) * linear: no normaliser is needed

    dt = softplus(g). The convolution of the `Stack` replaces the convolutions and positions of the papers.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        form: which one.
        heads: number of heads; K = V = hidden_size / heads, rounded up.

    Attributes:
        projection: nn.Linear(D, heads * (2K + V)), rows of each head [query; key; value]; of mamba2 and hgrn2 fewer.
        gates: nn.Linear, the source of decays and input gates; None for retnet.

    Source: Yang et al. 2023 (gla, arXiv:2312.06635), Sun et al. 2023 (retnet, arXiv:2307.08621), Qin et al. 2024
    (hgrn2, arXiv:2404.07904), Dao and Gu 2024 (the core of mamba2, arXiv:2405.21060), Beck et al. 2025 (mlstm with a
    sigmoid input gate, arXiv:2503.14376).
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, form: Form = "gla", heads: Count = 4) -> None:
        super().__init__(input_size, hidden_size, heads)
        size, self.form = self.size, form
        rows = {"mamba2": (heads + 2) * size, "hgrn2": 2 * heads * size}.get(form, 3 * heads * size)
        self.projection = nn.Linear(input_size, rows, bias=False)
        count = {"key": heads * size, "none": 0, "head": heads, "head and input": 2 * heads}[GATES[form]]
        self.gates = nn.Linear(input_size, count) if count else None
        if form == "mamba2":
            self.log_rate = nn.Parameter(torch.linspace(1, 16, heads).log())
            self.skip = nn.Parameter(torch.ones(heads))
        self.head_output = GatedOutput(input_size, heads, size, hidden_size)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Initialise the gate biases for long memories, as in the sources; for hgrn2 from 2 to 256 steps."""
        if self.gates is None:
            return
        bias, heads = self.gates.bias, self.heads
        if self.form == "mamba2":
            bias.copy_(inverse_softplus(torch.logspace(-3, -1, heads)))
        if self.form == "hgrn2":
            bias.copy_(-spread_bias(self.size, (2.0, 256.0)).repeat(heads))
        if self.form == "mlstm":
            bias.copy_(torch.cat([torch.linspace(3, 6, heads), torch.zeros(heads)]))

    def parts(self, x: Tensor) -> Parts:
        """Query, key, value and decay of x [..., D]."""
        projected, heads, size, scale = self.projection(x), self.heads, self.size, self.size**-0.5
        if self.form == "mamba2":
            wide = silu(projected.to(carry_dtype(projected)))
            (value, key, query), dt = torch.split(wide, [heads * size, size, size], -1), softplus(self._gate(x))
            key, query = (part.unsqueeze(-2).expand(*part.shape[:-1], heads, size) for part in (key, query))
            value = in_shape(value, heads, size)
            return Parts(query, dt[..., None] * key, value, -dt * self.log_rate.exp())
        if self.form == "hgrn2":
            gate = in_shape(self._gate(x), heads, size)
            query, value = self.split(projected, size, size)
            return Parts(silu(query), torch.sigmoid(-gate), value, logsigmoid(gate))
        query, key, value = self.split(projected, size, size, size)
        if self.form == "retnet":
            powers = torch.arange(5, 5 + heads, dtype=query.dtype, device=query.device)
            return Parts(scale * query, key, value, torch.log1p(-torch.exp2(-powers)).expand(query.shape[:-1]))
        if self.form == "mlstm":
            forget, input = self._gate(x).chunk(2, -1)
            return Parts(query, scale * torch.sigmoid(input)[..., None] * key, value, logsigmoid(forget))
        return Parts(scale * query, key, value, logsigmoid(in_shape(self._gate(x), heads, size)) / 16)

    def put_out(self, x: Tensor, parts: Parts, y: Tensor) -> Tensor:
        """The output [..., H], given the value read."""
        if self.form == "mamba2":
            y = y + self.skip[:, None] * parts.value
        found: Tensor = self.head_output(x, y)
        return found

    def _gate(self, x: Tensor) -> Tensor:
        assert self.gates is not None, "retnet has no gates"
        gates: Tensor = self.gates(x)
        return gates.to(carry_dtype(gates))


@dataclass(frozen=True, kw_only=True)
class GatedLinearOptions(Settings):
    """Options of gated linear attention."""

    form: Form = "gla"  # Published form of decays and keys
    heads: Heads = 4  # Number of heads


CELL = register(
    Cell(
        "gated_linear",
        GatedLinear,
        about="Gated linear attention: a matrix per head that decays; as GLA, RetNet, HGRN2, Mamba-2 or mLSTM.",
        options=GatedLinearOptions,
        terms=terms,
        read=read,
        is_bounded=False,
    )
)
