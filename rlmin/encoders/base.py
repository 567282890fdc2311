"""The contract every encoder keeps: the same weights over [T, B, ...] in training and over [B, ...] in acting."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from rlmin.checks import check, check_flags
from rlmin.scan.boundary import full_precision as full_precision
from rlmin.types import State


class Encoder(nn.Module, ABC):
    """A sequence of inputs to a sequence of features, with a memory that is carried and wiped exactly.

        state    = encoder.initial_state(B)
        y, state = encoder(x, state, start)          # [T, B, D] -> [T, B, H]: one pass over a whole rollout
        y, state = encoder.step(x, state, start)     # [B, D] -> [B, H]: the same numbers, one step at a time

    Laws, values and gradients: `step` over T equals one pass; one pass equals any split with the state carried; a
    reset equals being born there; rows do not mix; the past never sees the future.

    Attributes:
        input_size: D, features of `x`.
        output_size: H, features of `y`.
    """

    input_size: int
    output_size: int
    _like: "State | None" = None  # a state of no rows, to compare with: making one for each pass would take longer

    @abstractmethod
    def initial_state(self, B: int) -> State:
        """The memory of B agents that have seen nothing yet: zeros [B, ...], on the module's device.

        Memory accumulates, so it is float32 even if the weights have less precision; float64 if the module is double.
        """

    @abstractmethod
    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Run T steps at once.

        Args:
            x: [T, B, D] float inputs.
            state: memory before x[0], from `initial_state` or an earlier call; not modified.
            start: [T, B] bool, x[t] opens an episode: the memory is wiped before x[t] is read.

        Returns:
            [T, B, H] features after each step, and the memory after the last. Gradients flow to `x`, the weights and
            `state`, and stop at every `start`.

        Raises:
            ValueError: `x` is not [T, B, D] or `start` is not [T, B].
        """

    @abstractmethod
    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Run one step: `x` [B, D], `start` [B] bool -> [B, H] and the memory after it. Nothing is checked here."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]: ...

    def zeros(self, *size: int) -> Tensor:
        """Zeros of `size` on the device of the weights, in the precision of the memory."""
        is_whole = isinstance(size[0], int | torch.SymInt | np.integer) and not isinstance(size[0], bool)
        if not is_whole or size[0] < 0 or (type(size[0]) is int and size[0] >= 2**63):
            raise ValueError(f"B: expected a whole number of at least 0, got {size[0]!r:.60}")
        weight = next(self.parameters())
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return torch.zeros(size, dtype=dtype, device=weight.device)

    def check_input(self, x: Tensor, start: Tensor, state: "State | None" = None) -> None:
        """Raise an error that names the axes if an argument does not fit: a kernel would read past its end.

        Args:
            x, start: of `forward`.
            state: of `forward`; None: not checked.

        Raises:
            ValueError: another shape or type.
            TypeError: `state` does not have the parts that `initial_state` gives.
        """
        size = check("x", x, "T B D", D=self.input_size)
        check("start", start, "T B", T=size["T"], B=size["B"])
        check_flags("start", start)
        weight = next(self.parameters())
        if x.dtype is not weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x: expected {weight.dtype} as the weights are, got {x.dtype}")
        if state is not None:
            if self._like is None:
                self._like = self.initial_state(0)
            check_state(state, self._like, size["B"])


def check_state(state: State, like: State, rows: int) -> None:
    """Raise an error if `state` has other parts or shapes than `like`, whose number of rows may differ from `rows`."""
    if isinstance(like, tuple):
        for part, wanted in zip(parts(state, len(like)), like, strict=True):
            check_state(part, wanted, rows)
        return
    found = one(state)
    if found.shape != (rows, *like.shape[1:]):
        raise ValueError(f"state: expected {[rows, *like.shape[1:]]}, got {list(found.shape)}")
    if found.dtype is torch.bool and like.dtype is not torch.bool:
        raise ValueError(f"state: expected {like.dtype}, got {found.dtype}")


def check_counts(**counts: int) -> None:
    """Raise a ValueError for the first number that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def one(state: State) -> Tensor:
    """`state` as the single tensor it must be."""
    if isinstance(state, Tensor):
        return state
    raise TypeError(f"state: expected one tensor, got {_kind(state)}; use this encoder's own initial_state()")


def parts(state: State, count: int) -> tuple[State, ...]:
    """`state` as the tuple of `count` that it must be."""
    if isinstance(state, tuple) and len(state) == count:
        return state
    raise TypeError(f"state: expected a tuple of {count}, got {_kind(state)}; use this encoder's own initial_state()")


def _kind(state: object) -> str:
    if isinstance(state, tuple):
        return f"a tuple of {len(state)}"
    return "one tensor" if isinstance(state, Tensor) else type(state).__name__


def wipe(state: Tensor, start: Tensor) -> Tensor:
    """`state` [B, ...] with zeros in the rows where `start` [B] is True, even where it was not finite."""
    return state.masked_fill(start.view(-1, *[1] * (state.dim() - 1)), 0)
