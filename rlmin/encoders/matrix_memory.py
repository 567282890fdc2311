"""The common part of cells with a matrix per head: one scan over time, one step, one output layer."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rlmin.encoders.base import Encoder, full_precision, one
from rlmin.encoders.cell import Terms
from rlmin.encoders.heads import size_of_head
from rlmin.encoders.root_mean_square import RootMeanSquare
from rlmin.scan import outer_scan
from rlmin.scan.boundary import carry_dtype
from rlmin.scan.outer import act, clip_decay
from rlmin.types import State


class Parts(NamedTuple):
    """Inputs of `outer_scan` that a cell computes from x [..., D], in the precision of the memory."""

    query: Tensor  # [..., heads, K]
    key: Tensor  # [..., heads, K]
    value: Tensor  # [..., heads, V]
    log_decay: Tensor | None = None  # [..., heads] or [..., heads, K]
    write: Tensor | None = None  # [..., heads]
    remove: tuple[Tensor, Tensor] | None = None  # [..., heads, K] each


class MatrixMemory(Encoder):
    """A matrix [K, V] per head: `parts` gives the inputs of the scan, `put_out` turns the value read into the output.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        heads: number of heads; K = V = hidden_size / heads, rounded up, so that any number of heads fits.
    """

    exclusive: ClassVar[bool] = False  # whether it reads before it writes

    def __init__(self, input_size: int, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.heads, self.size = heads, size_of_head(hidden_size, heads)

    @abstractmethod
    def parts(self, x: Tensor) -> Parts:
        """Inputs of the scan for x [..., D]."""

    @abstractmethod
    def put_out(self, x: Tensor, parts: Parts, y: Tensor) -> Tensor:
        """The output [..., H], given the value read, y [..., heads, V]."""

    def initial_state(self, B: int) -> Tensor:
        """[B, heads, K, V] zeros."""
        return self.zeros(B, self.heads, self.size, self.size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, heads, K, V]."""
        self.check_input(x, start, state)
        parts = self.parts(x)
        q, k, v, g, write, remove = parts
        y, last = outer_scan(q, k, v, g, one(state), start, write=write, remove=remove, exclusive=self.exclusive)
        return self.put_out(x, parts, y), last

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, heads, K, V]."""
        parts = self.parts(x)
        q, k, v, g, write, remove = parts
        with full_precision(x):
            y, S = act(q, k, v, g, one(state), start, write=write, remove=remove, exclusive=self.exclusive)
        return self.put_out(x, parts, y), S

    def split(self, x: Tensor, *parts: int) -> list[Tensor]:
        """x [..., heads * sum of parts] as one [..., heads, part] each, in the precision of the memory."""
        return list(torch.split(in_shape(x.to(carry_dtype(x)), self.heads, sum(parts)), list(parts), -1))


class GatedOutput(nn.Module):
    """output(rms(y) * silu(gate(x))): each head of y is brought to length sqrt(V) before heads are mixed."""

    def __init__(self, input_size: int, heads: int, size: int, output_size: int) -> None:
        super().__init__()
        self.norm = RootMeanSquare(size)
        self.gate = nn.Linear(input_size, heads * size, bias=False)
        self.output = nn.Linear(heads * size, output_size)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., H] of x [..., D] and y [..., heads, V]."""
        found: Tensor = self.output((self.norm(y.to(x.dtype)).flatten(-2)) * silu(self.gate(x)))
        return found


def terms(mixer: MatrixMemory, x: Tensor) -> Terms:
    """S[t] = exp(log_decay) * S[t-1] + key value', for cells that remove nothing."""
    parts = mixer.parts(x)
    written = parts.key[..., None] * parts.value[..., None, :]
    if parts.log_decay is None:
        return Terms(torch.zeros_like(written[..., :1, :1]), written)
    rate = -clip_decay(parts.log_decay, parts.query)
    return Terms((rate if rate.dim() == parts.key.dim() else rate[..., None])[..., None], written)


def read(mixer: MatrixMemory, x: Tensor, memory: Tensor) -> Tensor:
    """The output, given the memory [..., heads, K, V]."""
    parts = mixer.parts(x)
    return mixer.put_out(x, parts, (parts.query[..., None, :] @ memory.to(parts.query.dtype)).squeeze(-2))


class LowRank(nn.Module):
    """last(activation(first(x))) of rank 32 or less; before training it is its bias for every x.

    Attributes:
        first: nn.Linear(D, rank) of zeros; last: nn.Linear(rank, H), orthogonal.
    """

    def __init__(
        self, input_size: int, output_size: int, *, activation: Callable[[Tensor], Tensor], gain: float = 0.1
    ) -> None:
        super().__init__()
        rank = min(32, input_size, output_size)
        self.first, self.last = nn.Linear(input_size, rank, bias=False), nn.Linear(rank, output_size)
        self.activation = activation
        nn.init.zeros_(self.first.weight)
        nn.init.orthogonal_(self.last.weight, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] of x [..., D]."""
        y: Tensor = self.last(self.activation(self.first(x)))
        return y


class TimeMixing(MatrixMemory):
    """The layers that RWKV-6 and RWKV-7 share; each head is a group of the norm.

    Attributes:
        projection: nn.Linear(D, heads * (2K + V)) without bias; decay: `LowRank`; norm: nn.GroupNorm; output: linear.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int) -> None:
        super().__init__(input_size, hidden_size, heads)
        width = heads * self.size
        self.projection = nn.Linear(input_size, 3 * width, bias=False)
        self.decay = LowRank(input_size, width, activation=torch.tanh)
        self.norm = nn.GroupNorm(heads, width, eps=64e-5)
        self.output = nn.Linear(width, hidden_size)


def in_shape(x: Tensor, *sizes: int) -> Tensor:
    """[..., product of sizes] as [..., *sizes]."""
    return x.reshape(*x.shape[:-1], *sizes)
