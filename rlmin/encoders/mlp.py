"""No memory at all: the control every claim about memory is measured against."""

from itertools import pairwise

from torch import Tensor, nn

from rlmin.encoders.base import Encoder
from rlmin.types import State


class MLP(Encoder):
    """A feed-forward encoder: y[t] depends on x[t] and on nothing else.

        y[t] = silu(linear(... silu(linear(x[t]))))

    Args:
        input_size: D, features of x.
        hidden_size: H, features of every layer.
        layers: number of linear layers, each followed by SiLU; at least one.

    Its state is (), which every function on states accepts; `start` has nothing to wipe.
    """

    def __init__(self, input_size: int, hidden_size: int, *, layers: int = 2) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        self.input_size, self.output_size = input_size, hidden_size
        sizes = [input_size] + [hidden_size] * layers
        linear = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        self.network = nn.Sequential(*(module for layer in linear for module in (layer, nn.SiLU())))

    def initial_state(self, B: int) -> State:
        """(): there is nothing to remember."""
        return ()

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` ()."""
        self.check_input(x, start)
        return self.network(x), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` ()."""
        return self.network(x), state
