"""RegularLRNN: blocks of units that mix by a matrix of their own at every step, so that they can count and permute."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, full_precision, one, wipe
from rlmin.encoders.cell import Cell, register
from rlmin.settings import Range, Settings, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Block = Annotated[int, Range(least=2, most=64)]

NORM = 1.2
"""The paper's p: columns of this p-norm leave room for permutations, and hardly let products grow."""


class RegularLRNN(Encoder):
    """One layer of RegularLRNN, per block of units.

        M[t] = matrix(x[t]);      v[t] = value(x[t])                   both: Linear, ReLU, Linear
        M[t] = M[t] - mean over the rows of M[t]
        A[t] = M[t] / (largest p-norm of a column of M[t])             p = 1.2
        a[t] = A[t] a[t-1] + v[t],    a before an episode = base
        y[t] = output(a[t])

    Linear in the memory, but neither diagonal nor of rank one, so that a block can permute its units: it counts modulo
    a number, which a diagonal memory with real decays cannot. It is run step by step: a parallel scan would cost
    block**3 products for each step and unit.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of y.
        block: units of a block, at least 2; there are hidden_size / block blocks, rounded up.

    Attributes:
        matrix: nn.Sequential, D -> H -> blocks * block * block. The paper's inner layer is `block` times as wide.
        value: nn.Sequential, D -> H -> blocks * block.
        base: [blocks, block], the memory at the start of an episode, learned.
        output: nn.Linear(blocks * block, H).

    The state is a - base, [B, blocks, block], so that a reset is zero.

    Source: Fan et al. 2023 (arXiv:2309.07412), with the norm of its code: one divisor for a whole block.
    """

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, block: Block = 8) -> None:
        super().__init__()
        if block < 2:
            raise ValueError(f"block: expected at least 2 units, which are mixed, got {block}")
        self.input_size, self.output_size, self.block = input_size, hidden_size, block
        blocks = -(-hidden_size // block)
        self.matrix = _perceptron(input_size, hidden_size, blocks * block * block)
        self.value = _perceptron(input_size, hidden_size, blocks * block)
        self.base = nn.Parameter(torch.randn(blocks, block))
        self.output = nn.Linear(blocks * block, hidden_size)

    def initial_state(self, B: int) -> Tensor:
        """[B, blocks, block] zeros."""
        return self.zeros(B, *self.base.shape)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, blocks, block]."""
        self.check_input(x, start, state)
        shift, found = one(state), []
        A, v = self.transitions(x, shift.dtype)
        with full_precision(x):
            for t in range(len(x)):
                a = self._walk(A[t], v[t], wipe(shift, start[t]))
                found.append(a)
                shift = a - self.base.to(a.dtype)
            memory = torch.stack(found) if found else v
        return self.write(memory, x.dtype), shift

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, blocks, block]."""
        shift = wipe(one(state), start)
        A, v = self.transitions(x, shift.dtype)
        with full_precision(x):
            a = self._walk(A, v, shift)
        return self.write(a, x.dtype), a - self.base.to(a.dtype)

    def transitions(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A [..., blocks, block, block] and v [..., blocks, block] of x [..., D], in `dtype`."""
        M = self.matrix(x).to(dtype).unflatten(-1, (*self.base.shape, self.block))
        M = M - M.sum(-2, keepdim=True) / self.block  # mean() becomes a name twice in ONNX graphs
        with full_precision(x):
            norm = torch.linalg.vector_norm(M, NORM, dim=-2, keepdim=True).amax(-1, keepdim=True)
            A = M / norm.clamp(min=torch.finfo(dtype).tiny)
        return A, self.value(x).to(dtype).unflatten(-1, self.base.shape)

    def _walk(self, A: Tensor, v: Tensor, shift: Tensor) -> Tensor:
        """The memory a [B, blocks, block] after a step."""
        return (A @ (self.base.to(shift.dtype) + shift).unsqueeze(-1)).squeeze(-1) + v

    def write(self, memory: Tensor, dtype: torch.dtype) -> Tensor:
        """y [..., H] of the memory [..., blocks, block]."""
        y: Tensor = self.output(memory.flatten(-2).to(dtype))
        return y


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@dataclass(frozen=True, kw_only=True)
class RegularLRNNOptions(Settings):
    """Options of RegularLRNN."""

    block: Block = 8  # Number of units that mix with each other


CELL = register(
    Cell(
        "regular_lrnn",
        RegularLRNN,
        about="Blocks of units that a matrix of the input mixes, step by step: counting and permutations.",
        options=RegularLRNNOptions,
        output_is_memory=False,
    )
)
