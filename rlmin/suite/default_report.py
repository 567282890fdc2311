"""Report of the defaults suite: a row for each cell, a table over tasks and columns, and the curves."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmin.files.read_bounded import read_bounded
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.curves import mean_curve
from rlmin.runs.statistics import iqm_interval, mean_interval, normalise
from rlmin.suite.cells import Row
from rlmin.suite.report import as_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = ("seed", "steps", "final", "worst", "reached", "floor", "ceiling", "seconds")
LISTS = ("points", "curve")
CELLS = ["task", "encoder", *NUMBERS[:-1], *LISTS, "seconds"]
LARGEST = 64 * 2**20
"""Most bytes of a file of cells."""
LEGEND = """\
Everything at its default. final: greedy return of the last policy, mean over seeds [95 % bootstrap interval where there
are several]. worst: the lowest of the last five evaluations of any seed. 90 %: steps (median over seeds) after which a
policy first was nine tenths of the way from the floor to the best of its curve.
"""


def write_report(rows: Sequence[Row], results: Path, *, name: str) -> str:
    """Write NAME-cells.csv, NAME.csv, NAME.md and NAME.png into `results`; returns the table."""
    cells = [{key: _flat(row[key]) for key in CELLS} for row in rows]
    write_atomic(results / f"{name}-cells.csv", as_csv(cells))
    write_atomic(results / f"{name}.csv", as_csv(summarise(rows)))
    text = as_markdown(rows)
    write_atomic(results / f"{name}.md", text.encode())
    image = io.BytesIO()
    draw_curves(rows).savefig(image, format="png", dpi=110)
    write_atomic(results / f"{name}.png", image.getvalue())
    return text


def read_cells(file: Path) -> list[Row]:
    """The rows of a NAME-cells.csv, as `write_report` wrote them, on any machine.

    Raises:
        ValueError: the file does not exist, or is not of that kind.
    """
    if not file.exists():
        raise ValueError(f"{file}: no such file")
    text = read_bounded(file, most=LARGEST, form="CSV").decode(errors="replace")
    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names, lines = table.fieldnames, [(table.line_num, line) for line in table]
    except csv.Error as error:
        raise ValueError(f"{file}: not readable as CSV ({error})") from None
    if names != CELLS:
        raise ValueError(f"{file}: expected the columns {', '.join(CELLS)}, got {names!r:.200}")
    return [_read_row(line, where=f"{file}, line {number}") for number, line in lines]


def join_cells(
    rows: Sequence[Row], others: Sequence[Row], *, tasks: Sequence[str], columns: Sequence[str]
) -> list[Row]:
    """Rows, then the cells among `others` that they lack; in the order of these tasks and columns, then of seeds."""
    found = {(row["task"], row["encoder"], int(row["seed"])): row for row in (*others, *rows)}
    return [found[key] for key in sorted(found, key=lambda key: (tasks.index(key[0]), columns.index(key[1]), key[2]))]


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each task and column."""
    table = []
    for task, column in dict.fromkeys((row["task"], row["encoder"]) for row in rows):
        chosen = [row for row in rows if (row["task"], row["encoder"]) == (task, column)]
        final = mean_interval([row["final"] for row in chosen])
        steps = [row["reached"] for row in chosen if row["reached"] is not None]
        line: dict[str, Any] = {"task": task, "column": column, "seeds": len(chosen), "steps": chosen[0]["steps"]}
        line |= {"final": final.value, "final low": final.low, "final high": final.high}
        line |= {"worst": min(row["worst"] for row in chosen), "reached": float(np.median(steps)) if steps else None}
        table.append(line | {"floor": chosen[0]["floor"], "ceiling": chosen[0]["ceiling"]})
    return table


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, one line a task; below it the interquartile means over the tasks that every column has."""
    columns = list(dict.fromkeys(row["encoder"] for row in rows))
    summary = {(line["task"], line["column"]): line for line in summarise(rows)}
    lines = [LEGEND, f"| task | steps | seeds | {' | '.join(columns)} |", f"|---|---|---|{'---|' * len(columns)}"]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [summary.get((task, column)) for column in columns]
        there = [line for line in own if line is not None]
        seeds = ", ".join(dict.fromkeys(str(line["seeds"]) for line in there))
        texts = ["" if line is None else _entry(line) for line in own]
        lines.append(f"| {task} | {there[0]['steps']:,} | {seeds} | {' | '.join(texts)} |")
    for what in ("final", "worst"):
        means = [_iqm(rows, column, what) for column in columns]
        lines.append(f"| IQM of normalised returns, {what} | | | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def draw_curves(rows: Sequence[Row]) -> "Figure":
    """Greedy return over steps: a panel a task, a line a column with its 95 % interval over seeds."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = list(dict.fromkeys(row["encoder"] for row in rows))
    wide = min(4, len(tasks))
    high = -(-len(tasks) // wide)
    figure = Figure(figsize=(3.6 * wide, 2.6 * high + 0.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(high, wide)).ravel()
    for panel, task in zip(panels, tasks, strict=False):
        for number, column in enumerate(columns):
            chosen = [row for row in rows if (row["task"], row["encoder"]) == (task, column)]
            if chosen:
                found = mean_curve([(row["points"], row["curve"]) for row in chosen])
                panel.plot(found.x / 1000, found.mean, color=f"C{number}")
                panel.fill_between(found.x / 1000, found.low, found.high, color=f"C{number}", alpha=0.2, linewidth=0)
        panel.set_title(task, fontsize="small")
        panel.set_xlabel("thousand environment steps", fontsize="small")
        panel.grid(alpha=0.3)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    shown = [panels[0].plot([], color=f"C{number}", label=column)[0] for number, column in enumerate(columns)]
    figure.legend(handles=shown, loc="outside upper right", ncols=len(shown), fontsize="small")
    return figure


def _iqm(rows: Sequence[Row], column: str, what: str) -> str:
    """Interquartile means over the tasks that every column has played."""
    everyone = {row["encoder"] for row in rows}
    played = {task: {row["encoder"] for row in rows if row["task"] == task} for task in {row["task"] for row in rows}}
    tasks: dict[str, list[float]] = {}
    for row in rows:
        if row["encoder"] == column and played[row["task"]] == everyone:
            tasks.setdefault(row["task"], []).append(normalise(row[what], row["floor"], row["ceiling"]))
    if not tasks:
        return ""
    found = iqm_interval(list(tasks.values()))
    return str(found) if any(len(seeds) > 1 for seeds in tasks.values()) else f"{found.value:.3f}"


def _entry(line: dict[str, Any]) -> str:
    """One column of a task: final with its interval, worst, steps to 90 %."""
    interval = f"{line['final']:.4g}"
    if line["seeds"] > 1:
        interval += f" [{line['final low']:.4g}, {line['final high']:.4g}]"
    steps = "-" if line["reached"] is None else f"{line['reached'] / 1000:.0f} k"
    return f"{interval}, worst {line['worst']:.4g}, 90 % {steps}"


def _read_row(entries: dict[str, str], *, where: str) -> Row:
    """A row, from the text of its entries."""
    row: Row = {key: entries[key] for key in ("task", "encoder")}
    try:
        row |= {key: float(entries[key]) if entries[key] else None for key in NUMBERS}
        row |= {key: [float(x) for x in entries[key].split()] for key in LISTS}
        return row | {key: int(entries[key]) for key in ("seed", "steps")}
    except (ValueError, TypeError, AttributeError):  # no number; a line that is too short
        raise ValueError(f"{where}: expected numbers in {', '.join(CELLS[2:])}") from None


def _flat(x: Any) -> Any:
    """A list as one entry of a CSV file."""
    return " ".join(f"{one:.6g}" for one in x) if isinstance(x, list) else x
