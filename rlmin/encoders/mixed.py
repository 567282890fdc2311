"""Stacks whose layers have different memories: names joined by "+" are a pattern, repeated over the layers.

    Stack(D, H, mixer="rg_lru+rg_lru+attention", layers=6, context=32)

A pattern is a cell like any other. Its options are those of its members, and each of them reaches every member that has
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from rlmin.encoders.base import Encoder
from rlmin.encoders.cell import Cell
from rlmin.settings import Settings
from rlmin.settings.fields import field_types


@cache
def mix(cells: tuple[Cell, ...]) -> Cell:
    """A cell whose layer i is of `cells[i % len(cells)]`.

    Args:
        cells: at least two, of which one remembers.

    Returns:
        the cell; an option that several have has the default of the first.

    Raises:
        ValueError: an option means different things to two of them.
    """
    options = _join_options(cells)

    def make_layer(input_size: int, hidden_size: int, *, layer: int = 0, **given: Any) -> Encoder:
        """The layer of this number in its stack."""
        own = cells[layer % len(cells)]
        mine = {name: value for name, value in given.items() if name in own.option_names}
        return own.make(input_size, hidden_size, layer=layer, **mine)

    members = tuple(dict.fromkeys(cells))
    windows = {cell.window for cell in members}
    return Cell(
        "+".join(cell.name for cell in cells),
        make_layer,
        about=f"Layers of {', '.join(cell.name for cell in cells)}, repeated.",
        options=options,
        output_is_memory=False,
        remembers=any(cell.remembers for cell in members),
        state_names=cells[0].state_names,
        is_bounded=all(cell.is_bounded for cell in members),
        window=windows.pop() if len(windows) == 1 else None,
        by_layer=True,
        couple=_join_couples(members),
    )


def _join_options(cells: Sequence[Cell]) -> type[Settings] | None:
    """One class with the options of all cells."""
    known: dict[str, tuple[str, Any]] = {}
    for cell in cells:
        options: Any = cell.options
        for name, hint in field_types(options).items() if options else ():
            first, declared = known.setdefault(name, (cell.name, hint))
            if hint != declared:
                raise ValueError(f"encoder: {first} and {cell.name} mean different things by {name!r}; mix others")
    kinds = dict.fromkeys(cell.options for cell in cells if cell.options)
    bases = tuple(one for one in kinds if not any(other is not one and issubclass(other, one) for other in kinds))
    if len(bases) < 2:
        return bases[0] if bases else None
    kind = type("MixedOptions", bases, {"__doc__": "Options of several memories.", "__module__": __name__})
    return cast(type[Settings], dataclass(frozen=True, kw_only=True)(kind))


def _join_couples(cells: Sequence[Cell]) -> Callable[[Any], None] | None:
    """What joins the layers of each cell among themselves; None where no cell has any."""
    if all(cell.couple is None for cell in cells):
        return None

    def couple(modules: Sequence[Encoder]) -> None:
        for cell in cells:
            own = [module for module in modules if type(module) is cell.cls]
            if cell.couple is not None and own:
                cell.couple(own)

    return couple
