"""A stack of residual blocks around any mixer: the memory of an agent."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, parts
from rlmin.encoders.block import Block, make_mlp
from rlmin.encoders.cell import CELLS
from rlmin.encoders.conv import CausalConv
from rlmin.encoders.stack_step import StackStep
from rlmin.settings import Count, CountOrZero, ShareBelowOne, Size
from rlmin.settings.boundary import checked
from rlmin.types import State

Choice = TypeVar("Choice")
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "none": lambda size: nn.Identity(),
}


class Stack(Encoder):
    """An input projection, `layers` residual blocks and a final norm.

        x = embed(x)                                  # only where input_size differs from hidden_size
        x = x + mixer(conv(norm(x)))                  # each block
        x = x + mlp(norm(x))
        y = norm(x)

    The default is two layers, because one layer of minGRU cannot select what it stores by what it has stored: its gates
    see only the present.

    Args:
        input_size: D, features of x.
        hidden_size: H, features of the residual stream, of every mixer and of y.
        mixer: name of the registered cell that mixes time, or several joined by "+", which take turns layer by layer.
            "mlp" has none: it is the memoryless control, so its `conv` is always off, as a convolution would be a
            memory of a few steps.
        layers: number of blocks, at least one.
        conv: width of the causal convolution before the mixer, 0 to leave it out.
        mlp: expansion factor of the feed-forward half of a block, 0 to leave it out.
        norm: "layer", "rms" or "none".
        dropout: share of every update of the residual stream that is dropped, in [0, 1); in training mode only.
        options: keyword options of the mixer, such as `candidate` and `time_scales`, or `heads` and `context`.

    The state is a tuple over blocks of (conv state, mixer state); a part that is left out has the state ().

    Raises:
        ValueError: an unknown mixer, option or norm, fewer than one layer, or a dropout outside [0, 1).
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        mixer: str = "min_gru",
        layers: Count = 2,
        conv: CountOrZero = 4,
        mlp: CountOrZero = 2,
        norm: str = "layer",
        dropout: ShareBelowOne = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        cell, make_norm = pick_named("mixer", mixer, CELLS), pick_named("norm", norm, NORMS)
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a share in [0, 1), got {dropout}")
        self.input_size, self.output_size = input_size, hidden_size
        self.dropout = dropout
        self.embed = nn.Identity() if input_size == hidden_size else nn.Linear(input_size, hidden_size)
        self.blocks = nn.ModuleList(
            Block(
                cell.make(hidden_size, hidden_size, layer=layer, **options),
                conv=CausalConv(hidden_size, width=conv) if conv and cell.remembers else None,
                mlp=make_mlp(hidden_size, mlp * hidden_size, scale=(2 * layers) ** -0.5) if mlp else None,
                norm=make_norm,
                dropout=dropout,
            )
            for layer in range(layers)
        )
        if cell.couple is not None:
            cell.couple([block.mixer for block in self.blocks])
        self.norm = make_norm(hidden_size)
        self._in_one_call = StackStep()

    def initial_state(self, B: int) -> State:
        """A tuple over blocks of (conv state, mixer state), zeros."""
        return tuple(block.initial_state(B) for block in self.encoders())

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with the state of every block."""
        self.check_input(x, start, state)
        x, after = self.embed(x), []
        for block, before in zip(self.encoders(), parts(state, len(self.blocks)), strict=True):
            x, last = block(x, before, start)
            after.append(last)
        return self.norm(x), tuple(after)

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with the state of every block."""
        if not torch.compiler.is_compiling():
            done = self._in_one_call(self, x, state, start)
            if done is not None:
                return done
        x, after = self.embed(x), []
        for block, before in zip(self.encoders(), parts(state, len(self.blocks)), strict=True):
            x, last = block.step(x, before, start)
            after.append(last)
        return self.norm(x), tuple(after)

    def encoders(self) -> list[Encoder]:
        """The blocks, in order."""
        return [block for block in self.blocks if isinstance(block, Encoder)]


def pick_named(kind: str, name: str, choices: Mapping[str, Choice]) -> Choice:
    """`choices[name]`, or a ValueError that lists the names and suggests the nearest."""
    if name in choices:
        return choices[name]
    nearest = get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"{kind}: expected one of {', '.join(choices)}, got {name!r}{hint}")
