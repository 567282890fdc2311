"""No memory at all: the control for every claim about memory."""

from itertools import pairwise

from torch import Tensor, nn

from rlmin.encoders.base import Encoder
from rlmin.encoders.cell import Cell, register
from rlmin.encoders.numpy_program import After, NumpyForm, Program, linear
from rlmin.settings import Count, Size
from rlmin.settings.boundary import checked
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

    @checked
    def __init__(self, input_size: Size, hidden_size: Size, *, layers: Count = 2) -> None:
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
        self.check_input(x, start, state)
        return self.network(x), state

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` ()."""
        return self.network(x), state


def write_numpy(program: Program, name: str, mixer: MLP, read: str, after: After) -> str:
    """One step for numpy: see `NumpyForm`."""
    layers = [linear(layer) for layer in mixer.network if isinstance(layer, nn.Linear)]
    y = ""
    for i, (weight, bias) in enumerate([after(layers[0]), *layers[1:]]):
        hidden = program.product(f"{name}.mixer.{i}", read, -weight, -bias)
        read, y = program.ending_in_one(f"{hidden}.out", len(bias))
        program.silu(hidden, y, len(bias))
    return y


CELL = register(
    Cell(
        "mlp",
        MLP,
        about="No memory at all: the control for every claim about memory.",
        to_numpy=NumpyForm(write_numpy),
        output_is_memory=False,
        remembers=False,
        state_names=(),
        is_bounded=False,
    )
)
