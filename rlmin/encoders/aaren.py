"""Aaren, attention as an RNN: softmax attention of a learned query over the whole episode, in constant memory."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rlmin.encoders.base import Encoder, one, parts, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.heads import HeadOptions, size_of_head
from rlmin.scan import linear_scan
from rlmin.settings import Count, Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class Aaren(Encoder):
    """One layer of Aaren.

        s[t] = query . key(x[t]) / sqrt(size)                          per head; the query is learned, not computed
        y[t] = output(sum over i of softmax(s)[i] * value(x[i]))       over every step i <= t of the episode

    As an RNN, with the largest score m, the denominator u and the numerator w:

        m[t] = max(m[t-1], s[t]),   a = exp(m[t-1] - m[t]),   p = exp(s[t] - m[t])
        u[t] = a * u[t-1] + p,      w[t] = a * w[t-1] + p * value(x[t]),      y[t] = output(w[t] / u[t])

    No exponent is above zero and u is at least one, so no score is too large. Given m, which a parallel scan of maxima
    finds, u and w are linear recurrences: `linear_scan` is the parallel form. u = 0 means that nothing was seen yet.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; each has hidden_size / heads features, rounded up.

    Attributes:
        query: [heads, size], the learned query.
        key: nn.Linear(D, heads * size) without bias, as softmax ignores one.
        value: nn.Linear(D, heads * size).
        output: nn.Linear(heads * size, H).

    Raises:
        ValueError: fewer than one head.

    Source: Feng et al. 2024, "Attention as an RNN" (arXiv:2405.13956).
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, heads: Count = 4) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, size_of_head(hidden_size, heads)
        self.query = nn.Parameter(torch.randn(heads, self.size))
        self.key = nn.Linear(input_size, heads * self.size, bias=False)
        self.value = nn.Linear(input_size, heads * self.size)
        self.output = nn.Linear(heads * self.size, hidden_size)

    def initial_state(self, B: int) -> State:
        """(m, u, w): [B, heads], [B, heads] and [B, heads, size] zeros."""
        return self.zeros(B, self.heads), self.zeros(B, self.heads), self.zeros(B, self.heads, self.size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` (m, u, w); m is a choice of scale, and no gradient passes through it."""
        self.check_input(x, start, state)
        before, u, w = self._enter(state, start[0])
        score, value = self._read(x, u.dtype)
        with torch.no_grad():
            m = _running_max(torch.cat([before.unsqueeze(0), score]), start)
            decay = (m[:-1] - m[1:]).exp().masked_fill(start.unsqueeze(-1), 0)
            last, m = m[-1], m[1:]
        p = (score - m).exp()
        us, u = linear_scan(decay, p, u, start)
        ws, w = linear_scan(decay.unsqueeze(-1).expand_as(value), p.unsqueeze(-1) * value, w, start)
        return self._write(us, ws, x.dtype), (last, u, w)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` (m, u, w)."""
        before, u, w = self._enter(state, start)
        score, value = self._read(x, u.dtype)
        m = torch.maximum(before, score.detach())
        a, p = (before - m).exp(), (score - m).exp()
        u = torch.addcmul(p, a, u)
        w = torch.addcmul(p.unsqueeze(-1) * value, a.unsqueeze(-1), w)
        return self._write(u, w, x.dtype), (m, u, w)

    def _enter(self, state: State, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The parts of the state, wiped in the rows that start; m is -inf where nothing was seen."""
        m, u, w = (wipe(one(part), start) for part in parts(state, 3))
        return m.detach().masked_fill(u == 0, -torch.inf), u, w

    def _read(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Scores [..., heads] and values [..., heads, size] of x [..., D], in the precision of the state."""
        key = self.key.weight.view(self.heads, self.size, -1)
        ask = (self.query.unsqueeze(-1) * key).sum(1) * self.size**-0.5  # [heads, D]: query . key(x) is ask . x
        return linear(x, ask).to(dtype), self.value(x).to(dtype).unflatten(-1, (self.heads, self.size))

    def _write(self, u: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
        y: Tensor = self.output((w / u.unsqueeze(-1)).flatten(-2).to(dtype))
        return y


def _running_max(score: Tensor, start: Tensor) -> Tensor:
    """The largest score so far in the episode, [1 + T, B, heads]; score[0] is the state's, the others are the steps'.

    A parallel scan: after k rounds, m[t] is the largest of the last 2**k, none from before a start.
    """
    m, cut = score, torch.cat([start.new_zeros(1, start.shape[1]), start]).unsqueeze(-1)
    back = 1
    while back < len(m):
        earlier = m[:-back].masked_fill(cut[back:], -torch.inf)
        m = torch.cat([m[:back], torch.maximum(m[back:], earlier)])
        cut = torch.cat([cut[:back], cut[back:] | cut[:-back]])
        back *= 2
    return m


CELL = register(
    Cell(
        "aaren",
        Aaren,
        about="Attention as an RNN: a learned query over the whole episode, in constant memory.",
        options=HeadOptions,
        output_is_memory=False,
        state_names=("largest", "denominator", "numerator"),
        is_bounded=False,
    )
)
