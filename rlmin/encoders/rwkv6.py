"""RWKV-6: a matrix memory whose decays depend on the input, read before it is written."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import HeadOptions
from rlmin.encoders.matrix_memory import Parts, TimeMixing
from rlmin.settings import Count, Size
from rlmin.settings.boundary import checked


class RWKV6(TimeMixing):
    """One layer of the time mixing of RWKV-6 ("Finch").

        y[t] = output(norm(S[t-1]' query[t] + (query[t] . (bonus * key[t])) value[t]) * silu(gate(x[t])))
        S[t] = decay[t] * S[t-1] + key[t] value[t]'                       [K, V] per head, decay over its rows
        decay[t] = exp(-exp(decay(x[t])))                                 read as at least exp(-8)

    Step t is read with a weight of its own, the bonus, and not through the memory. Each head is a group of the norm.
    The convolution of the `Stack` replaces the paper's token shift.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; K = V = hidden_size / heads, rounded up.

    Attributes:
        projection: nn.Linear(D, heads * (2K + V)); decay: `LowRank`; bonus: [heads, K].

    Source: Peng et al. 2024 (arXiv:2404.05892).
    """

    exclusive = True

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, heads: Count = 4) -> None:
        super().__init__(input_size, hidden_size, heads)
        width = heads * self.size
        self.bonus = nn.Parameter(torch.linspace(-0.5, 0.5, self.size).repeat(heads, 1))
        self.gate = nn.Linear(input_size, width, bias=False)
        with torch.no_grad():  # from decays of exp(-exp(-6)), hundreds of steps, to exp(-exp(-1)), three
            self.decay.last.bias.copy_(torch.linspace(-6, -1, self.size).repeat(heads))

    def parts(self, x: Tensor) -> Parts:
        """Inputs of the scan for x [..., D]."""
        query, key, value = self.split(self.projection(x), self.size, self.size, self.size)
        (rate,) = self.split(self.decay(x), self.size)
        return Parts(query, key, value, -rate.exp())

    def put_out(self, x: Tensor, parts: Parts, y: Tensor) -> Tensor:
        """The output [..., H], given the value read, with the bonus added."""
        now = (parts.query * self.bonus * parts.key).sum(-1, keepdim=True) * parts.value
        normed = self.norm((y + now).flatten(-2).flatten(0, -2).to(x.dtype)).view(*x.shape[:-1], -1)
        found: Tensor = self.output(normed * silu(self.gate(x)))
        return found


CELL = register(
    Cell(
        "rwkv6",
        RWKV6,
        about="RWKV-6: a matrix per head with a decay for every key feature, read before it is written.",
        options=HeadOptions,
        output_is_memory=False,
        is_bounded=False,
    )
)
