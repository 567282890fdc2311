"""RWKV-7: a matrix memory with decays and a removal along a key of its own, a generalised delta rule."""

import torch
from torch import Tensor, nn

from rlmin.encoders.cell import Cell, register
from rlmin.encoders.delta_net import unit
from rlmin.encoders.heads import HeadOptions
from rlmin.encoders.matrix_memory import LowRank, Parts, TimeMixing
from rlmin.settings import Count, Size
from rlmin.settings.boundary import checked


class RWKV7(TimeMixing):
    """One layer of the time mixing of RWKV-7 ("Goose").

        S[t] = decay[t] * S[t-1] - (rate[t] * taken[t]) (taken[t]' S[t-1]) + key[t] value[t]'         [K, V] per head
        y[t] = output((norm(S[t]' query[t]) + (query[t] . (bonus * key[t])) value[t]) * gate[t])

        decay = exp(-0.6065 sigmoid(decay(x))),   rate = sigmoid(rate(x)),   gate = gate(x)     each of low rank
        taken = scale * k at length 1,   key = k * (1 + (rate - 1) * share),   query, k, value = projection(x)

    Decays lie in (0.545, 1) and `taken` has length 1, so S stays bounded. Each head is a group of the norm. The
    convolution of the `Stack` replaces the paper's token shift; values are not mixed with those of other layers.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; K = V = hidden_size / heads, rounded up.

    Attributes:
        projection: nn.Linear(D, heads * (2K + V)); scale, share, bonus: [heads, K]; decay, rate, gate: of low rank.

    Source: Peng et al. 2025 (arXiv:2503.14456).
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, heads: Count = 4) -> None:
        super().__init__(input_size, hidden_size, heads)
        width = heads * self.size
        self.rate = LowRank(input_size, width, activation=nn.Identity())
        self.gate = LowRank(input_size, width, activation=torch.sigmoid, gain=1.0)
        self.scale = nn.Parameter(torch.full((heads, self.size), 0.71))
        self.share = nn.Parameter(torch.full((heads, self.size), 1.02))
        self.bonus = nn.Parameter(torch.full((heads, self.size), -0.04))
        with torch.no_grad():
            self.decay.last.bias.copy_(torch.linspace(-5.5, 0.5, self.size).repeat(heads))
            self.rate.last.bias.fill_(-0.19)

    def parts(self, x: Tensor) -> Parts:
        """Inputs of the scan for x [..., D]."""
        query, k, value = self.split(self.projection(x), self.size, self.size, self.size)
        decay, rate = (torch.sigmoid(self.split(lora(x), self.size)[0]) for lora in (self.decay, self.rate))
        taken = unit(k * self.scale)
        return Parts(query, k * (1 + (rate - 1) * self.share), value, -0.6065 * decay, remove=(-taken, rate * taken))

    def put_out(self, x: Tensor, parts: Parts, y: Tensor) -> Tensor:
        """The output [..., H], given the value read, with the bonus added."""
        normed = self.norm(y.flatten(-2).flatten(0, -2).to(x.dtype)).view(*x.shape[:-1], -1)
        now = (parts.query * self.bonus * parts.key).sum(-1, keepdim=True) * parts.value
        found: Tensor = self.output((normed + now.flatten(-2).to(x.dtype)) * self.gate(x))
        return found


CELL = register(
    Cell(
        "rwkv7",
        RWKV7,
        about="RWKV-7: a matrix per head that decays and forgets along a key, a generalised delta rule.",
        options=HeadOptions,
        output_is_memory=False,
        is_bounded=False,
    )
)
