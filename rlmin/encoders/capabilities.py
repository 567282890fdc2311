"""Capabilities: what a registered cell can do and what it lacks, for lists, tables and their test."""

from collections.abc import Callable
from typing import NamedTuple

from rlmin.encoders.cell import CELLS, Cell


class Capability(NamedTuple):
    """One thing that a cell may be able to do."""

    title: str  # heading of a column
    has: Callable[[Cell], bool]


CAPABILITIES: dict[str, Capability] = {
    "memory": Capability("memory", lambda cell: cell.remembers),
    "episode": Capability("whole episode", lambda cell: cell.remembers and cell.window is None),
    "terms": Capability("time scales and attribution", lambda cell: cell.has_terms),
    "size": Capability("size of the memory", lambda cell: cell.is_bounded),
    "numpy": Capability("numpy export", lambda cell: cell.to_numpy is not None),
    "fast_step": Capability("step in one call", lambda cell: cell.fast_step is not None),
}
"""Name -> capability. Every cell can train, act, be saved, and be exported to ONNX and torch."""


def lacking(cell: Cell) -> tuple[str, ...]:
    """Names of the capabilities that a cell does not have."""
    return tuple(name for name, capability in CAPABILITIES.items() if not capability.has(cell))


def lines() -> list[str]:
    """Every registered cell with a sentence, its options and its capabilities, a line each."""
    width = max(map(len, CELLS))
    return [f"{cell.name:{width}}  {sentence(cell)}" for cell in CELLS.values()]


def sentence(cell: Cell) -> str:
    """What a cell is, its options with their defaults, and what it lacks."""
    defaults = cell.options_of({})
    options = ", ".join(f"{name}={_show(default)}" for name, default in defaults.items())
    lacks = ", ".join(CAPABILITIES[name].title for name in lacking(cell))
    parts = [cell.about, f"Options: {options}." if options else "", f"Without: {lacks}." if lacks else ""]
    return " ".join(part for part in parts if part)


def table() -> str:
    """Every registered cell with its options and capabilities, as Markdown."""
    heads = ["encoder", "", "options", *(capability.title for capability in CAPABILITIES.values())]
    rows = [heads, ["---"] * len(heads)]
    for cell in CELLS.values():
        options = ", ".join(f"`{name}`" for name in cell.option_names)
        marks = ["yes" if capability.has(cell) else "" for capability in CAPABILITIES.values()]
        rows.append([f"`{cell.name}`", cell.about, options, *marks])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _show(default: object) -> str:
    return "..".join(f"{x:g}" for x in default) if isinstance(default, tuple) else str(default)
