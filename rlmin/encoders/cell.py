"""Cell: the registration of a memory, which says what it can do. Code that needs a capability asks the cell.

    register(Cell("mine", Mine, options=MineOptions, about="One sentence."))

A cell is a file with an `Encoder` in it and such a call at its end. From then on `Stack(mixer="mine")` and
`PPO(env, encoder="mine", decay=0.9)` know it, as do the command line, presets, exports, inspection and saved runs.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import KW_ONLY, dataclass, fields
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from rlmin.encoders.base import Encoder, one
from rlmin.encoders.numpy_program import NumpyForm
from rlmin.settings import Settings
from rlmin.types import State, tensors_of

RESERVED = ("input_size", "hidden_size", "mixer", "layers", "layer", "conv", "mlp", "norm", "dropout")
"""Names that no option may have: `Stack` has or gives them."""
MEMORY = "h"
"""Name of the part of a state that `Cell.terms` describe."""


class Terms(NamedTuple):
    """A memory as a sum: h[t] = decay[t] * h[t-1] + value[t], elementwise.

    decay = exp(-rate) * turn. Several units may share a rate; it only has to broadcast against the value.
    """

    rate: Tensor  # [T, ..., *unit] -log|decay|, below 0 where a memory grows; exact near a decay of 1
    value: Tensor  # [T, ..., *unit]
    turn: Tensor | None = None  # of absolute value 1: a sign, or a complex number; None: 1
    opening: Tensor | None = None  # [T, ..., *unit] the value at the start of an episode; None: the same

    @property
    def keep(self) -> Tensor:
        """[T, ..., *unit] the decay."""
        keep = torch.exp(-self.rate)
        return keep if self.turn is None else keep * self.turn


@dataclass(frozen=True)
class FastStep:
    """A cell that is one projection and a gated average, described for the step in one call (`rlmin.kernels.step`).

    The module has a `projection`, an nn.Linear(D, parts * H), and its state is one tensor [B, H].
    """

    average: str  # form of the average: a name in `rlmin.kernels.step.pieces.AVERAGES`
    parts: int  # rows of the projection, in units of H; the candidate comes last
    activation: str = "candidate"  # attribute of the module that names the activation of the candidate
    plain: str = "is_plain"  # attribute that is True if the call knows the module's options


@dataclass(frozen=True)
class Cell:
    """What a memory is called, how it is made and what it can do.

    Attributes:
        name: of the encoder in settings and on the command line.
        cls: the class: `cls(input_size, hidden_size, **options)`.
        about: one sentence for lists and tables.
        options: dataclass of `rlmin.settings.Settings` whose fields are the keyword options of `cls`, with type, range
            and default; None: it has none.
        terms: (module, x [T, ..., D]) -> `Terms` of its memory; None: the memory is not such a sum.
        read: (module, x [T, ..., D], memory [T, ..., *unit]) -> output [T, ..., H]; for a cell with terms whose output
            is not its memory.
        to_numpy: form of one step as numpy calls; None: there is no such export.
        fast_step: form of one step inside a single call on the CPU; None: its modules are called one by one.
        reads: (module) -> whether `read` applies, if that depends on its options; None: it always does.
        output_is_memory: whether the output is the state, which then is one tensor [B, H]. A module to which `read`
            applies puts out something else; a cell whose `read` applies to every module has False here by itself.
        remembers: whether there is a memory at all; without one, a stack adds no convolution, as that is a memory.
        state_names: a name for each tensor of the state, for exported files; "h" is the one that `terms` describe.
        pairs: whether the last axis of that part is (real, imaginary), so that its terms and its memory are complex.
        is_bounded: whether the state is a vector of units whose size says how full the memory is.
        window: the option that limits how far back it sees; None: there is no limit.
        by_layer: whether `cls` takes the keyword `layer`, the number of the layer in its stack, because layers differ.
            The other attributes then describe layer 0.
        couple: (modules of all layers of a stack) -> None: joins them where layers have weights in common, which have
            to be in the state_dict once; None: layers have none.
    """

    name: str
    cls: Callable[..., Encoder]
    _: KW_ONLY
    about: str = ""
    options: type[Settings] | None = None
    terms: Callable[[Any, Tensor], Terms] | None = None
    read: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    reads: Callable[[Any], bool] | None = None
    to_numpy: NumpyForm | None = None
    fast_step: FastStep | None = None
    output_is_memory: bool = True
    remembers: bool = True
    state_names: tuple[str, ...] = (MEMORY,)
    pairs: bool = False
    is_bounded: bool = True
    window: str | None = None
    by_layer: bool = False
    couple: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        if self.options is not None and not (isinstance(self.options, type) and issubclass(self.options, Settings)):
            raise TypeError(f"cell {self.name!r}: expected options to be a class of Settings, got {self.options!r}")
        for name in self.option_names:
            if name in RESERVED:
                raise ValueError(f"cell {self.name!r}: option {name!r} is an argument of every Stack; rename it")
        if self.read is not None and self.reads is None:
            object.__setattr__(self, "output_is_memory", False)
        if self.window is not None and self.window not in self.option_names:
            raise ValueError(
                f"cell {self.name!r}: window={self.window!r} is none of its options: {self._list_options()}"
            )

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of the options."""
        return () if self.options is None else tuple(field.name for field in fields(cast(Any, self.options)))

    @property
    def has_terms(self) -> bool:
        """Whether its memory is a sum over past steps whose effect on the output is known."""
        return self.terms is not None and (self.output_is_memory or self.read is not None)

    def puts_out_memory(self, module: nn.Module) -> bool:
        """Whether the output of this module is its memory."""
        return self.output_is_memory and not (self.reads is not None and self.reads(module))

    def options_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option, the defaults filled in.

        Args:
            given: options by name.

        Raises:
            ValueError: the cell has no such option, or it may not have this value.
        """
        self.check_options(given)
        return {} if self.options is None else dict(vars(self.options(**given)))

    def check_options(self, given: Mapping[str, Any] | tuple[str, ...]) -> None:
        """Raise a ValueError for the first name that is none of the options."""
        for name in given:
            if name not in self.option_names:
                near = get_close_matches(name, self.option_names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"encoder {self.name!r} has no option {name!r}; its options: {self._list_options()}{hint}"
                )

    def make(self, input_size: int, hidden_size: int, *, layer: int = 0, **options: Any) -> Encoder:
        """A module with these options.

        Args:
            input_size, hidden_size: D and H.
            layer: number of the layer in its stack, from 0.
            options: by name.

        Raises:
            ValueError: see `options_of`.
        """
        place = {"layer": layer} if self.by_layer else {}
        return self.cls(input_size, hidden_size, **place, **self.options_of(options))

    def memory_of(self, state: State) -> Tensor:
        """The part of a state that `terms` describe, complex where the cell has `pairs`."""
        part = self.part_of(state)
        return torch.view_as_complex(part) if self.pairs else part

    def part_of(self, state: State) -> Tensor:
        """The tensor of a state that `terms` describe."""
        return one(state) if len(self.state_names) == 1 else tensors_of(state)[self.state_names.index(MEMORY)]

    def _list_options(self) -> str:
        return ", ".join(self.option_names) or "none"


class Cells(dict[str, Cell]):
    """Registered cells by name; names of several joined by "+" are known too, see `rlmin.encoders.mixed`."""

    def __contains__(self, name: object) -> bool:
        known = super().__contains__
        return known(name) or (isinstance(name, str) and "+" in name and all(map(known, name.split("+"))))

    def __missing__(self, name: str) -> Cell:
        if name not in self:
            raise KeyError(name)
        from rlmin.encoders.mixed import mix  # which imports this file

        return mix(tuple(self[part] for part in name.split("+")))


CELLS = Cells()
"""Every registered cell by name."""


def option_names() -> set[str]:
    """Names of the options of all registered cells."""
    return {option for cell in CELLS.values() for option in cell.option_names}


def select_options(settings: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """`settings` of several encoders, without the options that this one does not have."""
    foreign = option_names() - set(CELLS[encoder].option_names if encoder in CELLS else ())
    return {name: value for name, value in settings.items() if name not in foreign}


def register(cell: Cell) -> Cell:
    """Make a cell known by its name. Registering a name again replaces it.

    Raises:
        TypeError: `cell` is no `Cell`.
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"register: expected a Cell, got {type(cell).__name__}; register(Cell(name, cls, ...))")
    CELLS[cell.name] = cell
    return cell


def cell_of(module: nn.Module | Encoder) -> Cell | None:
    """The registration of a module's own class; None where there is none."""
    return next((cell for cell in CELLS.values() if cell.cls is type(module)), None)


class Mixers(MutableMapping[str, Callable[..., Encoder]]):
    """Name -> class of every registered cell. Setting an item registers a cell without options and capabilities."""

    def __getitem__(self, name: str) -> Callable[..., Encoder]:
        return CELLS[name].cls

    def __setitem__(self, name: str, cls: Callable[..., Encoder]) -> None:
        register(Cell(name, cls, output_is_memory=False, is_bounded=False))

    def __delitem__(self, name: str) -> None:
        del CELLS[name]

    def __iter__(self) -> Iterator[str]:
        return iter(CELLS)

    def __len__(self) -> int:
        return len(CELLS)


MIXERS = Mixers()
"""Name -> class of every registered cell: `MIXERS[name](input_size, hidden_size, **options)`."""
