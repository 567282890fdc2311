"""A table of results: printed, written as CSV with the machine above it, and drawn beside it as PNG."""

import csv
import datetime
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rlmin.bench.machine import describe_machine
from rlmin.bench.options import Options
from rlmin.runs.checkpoint import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell: TypeAlias = str | int | float | None
Row: TypeAlias = dict[str, Cell]
Draw: TypeAlias = "Callable[[Table, Figure], None]"

LIMIT: dict[str, Any] = {"color": "0.3", "linestyle": "--", "linewidth": 1.0, "zorder": 1}
"""How a target is drawn."""


@dataclass(frozen=True)
class Target:
    """A number to reach."""

    what: str
    found: float
    limit: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.found <= self.limit if self.at_most else self.found >= self.limit

    def __str__(self) -> str:
        wanted = f"at {'most' if self.at_most else 'least'} {self.limit:g}"
        return f"{self.what}: {show(self.found)}, target {wanted}, {'met' if self.met else 'missed'}"


@dataclass
class Table:
    """Rows by column name, their targets, and the rows left out with the reasons."""

    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    skipped: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names in the order of their first appearance."""
        return list(dict.fromkeys(name for row in [*self.rows, *self.skipped] for name in row))

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)

    def skip(self, reason: object, row: Row) -> None:
        """Add the known part of a row that could not be measured; each reason is one line, reported once."""
        self.skipped.append(row)
        reason = " ".join(str(reason).split())
        if reason not in self.notes:
            self.notes.append(reason)

    def where(self, **wanted: Cell) -> list[Row]:
        """The measured rows with these values, in order."""
        return [row for row in self.rows if all(row.get(name) == cell for name, cell in wanted.items())]

    def each(self, name: str, **wanted: Cell) -> list[str]:
        """The different values of one column of `where`, as text, in order."""
        return list(dict.fromkeys(str(row[name]) for row in self.where(**wanted)))

    def numbers(self, name: str, **wanted: Cell) -> list[float]:
        """One numeric column of `where`."""
        return [number(row[name]) for row in self.where(**wanted)]

    def __str__(self) -> str:
        rows = [*self.rows, *self.skipped]
        lines = [self.columns, *([show(row.get(name)) for name in self.columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = ["<" if any(isinstance(row.get(name), str) for row in rows) else ">" for name in self.columns]
        layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
        ruled = [layout.format(*line).rstrip() for line in (lines[0], ["-" * width for width in widths], *lines[1:])]
        return "\n".join([*ruled, *self.remarks()])

    def remarks(self) -> list[str]:
        """Targets and notes, a line each."""
        return [*(f"target: {target}" for target in self.targets), *(f"skipped: {note}" for note in self.notes)]


def number(cell: Cell) -> float:
    """A numeric cell."""
    assert isinstance(cell, int | float), cell
    return float(cell)


def show(cell: Cell) -> str:
    """Three digits of a number, a dash for nothing."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:#.3g}".rstrip(".")
    return f"{cell:,}" if isinstance(cell, int) else cell


def write(name: str, table: Table, draw: Draw, options: Options) -> list[Path]:
    """Write NAME.csv and NAME.png into the folder of results, each at once or not at all."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    files = [options.folder / f"{name}.{kind}" for kind in ("csv", "png")]
    machine = describe_machine()
    write_atomic(files[0], as_csv(table, header(name, options, machine)).encode())
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    draw(table, figure)
    where = machine["CPU"] if options.device == "cpu" else machine["GPU"]
    threads = f", {options.threads} threads" if options.device == "cpu" else ""
    figure.supxlabel(f"rlmin bench {name}: {where}{threads}, torch {machine['torch']}", fontsize=8, color="0.4")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    write_atomic(files[1], image.getvalue())
    return files


def header(name: str, options: Options, machine: dict[str, str]) -> dict[str, str]:
    """The head of a CSV: command, date, machine."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"command": options.command(name), "date": date, **machine}


def as_csv(table: Table, above: dict[str, str]) -> str:
    """The rows, under lines that begin with "#"."""
    file = io.StringIO()
    for line in [*(f"{name}: {text}" for name, text in above.items()), *table.remarks()]:
        file.write(f"# {line}\n")
    writer = csv.DictWriter(file, table.columns, lineterminator="\n")
    writer.writeheader()
    for row in [*table.rows, *table.skipped]:
        writer.writerow({name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()})
    return file.getvalue()


def limit(axes: "Axes", value: float, text: str) -> None:
    """A target across the picture, with its words at the left end."""
    axes.axhline(value, **LIMIT)
    axes.annotate(
        text, (0.01, value), xycoords=("axes fraction", "data"), fontsize=8, color="0.3", va="bottom", ha="left"
    )


def plain_log(axes: "Axes", *, x: bool = False, y: bool = False) -> None:
    """Log axes with plain numbers on them, and a grid."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, scale, wanted in ((axes.xaxis, axes.set_xscale, x), (axes.yaxis, axes.set_yscale, y)):
        if wanted:
            scale("log", base=2 if axis is axes.xaxis else 10)
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if y and high < 200 * low:  # powers of ten alone would be too few
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.grid(alpha=0.3)
