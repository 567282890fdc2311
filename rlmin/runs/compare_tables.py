"""A comparison of runs as a table: for a terminal, or as CSV, Markdown or LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Sequence

from rlmin.runs.compare import Comparison, Row
from rlmin.runs.statistics import Interval

BAR = r"\|"
LATEX = {letter: f"\\{letter}" for letter in "&%#_{}$"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""Letters that LaTeX reads as commands -> what shows them."""
FEW = 3
"""Number of seeds below which an interval says little."""


def write_text(found: Comparison) -> str:
    """Aligned columns, and notes below them."""
    head, *rows = _cells(found)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join([*(line.rstrip() for line in lines), "", *_notes(found)])


def write_csv(found: Comparison) -> str:
    """A line for each group, every bound of an interval in a column of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["mean", "iqm", "difference", "improvement"]
    bounds = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(["group", "seeds", *bounds, "paired", "steps_to_threshold", "reached", "column", "steps"])
    for row in found.rows:
        numbers = [x for name in names for x in (getattr(row, name) or ("", "", ""))]
        steps = "" if row.steps_to_threshold is None else row.steps_to_threshold
        tail = [row.is_paired, steps, "" if found.threshold is None else row.reached, found.column, found.steps]
        writer.writerow([row.name, row.seeds, *numbers, *tail])
    return text.getvalue()


def write_markdown(found: Comparison) -> str:
    """A table for a README, and the notes below it."""
    head, *rows = _cells(found)
    lines = [f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", *_notes(found), ""])


def write_latex(found: Comparison) -> str:
    """A `tabular` with booktabs' rules; the notes are comments."""
    head, *rows = [[_escape(cell) for cell in row] for row in _cells(found)]
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            *(f"% {note}" for note in _notes(found)),
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


WRITERS: dict[str, Callable[[Comparison], str]] = {
    ".txt": write_text,
    ".csv": write_csv,
    ".md": write_markdown,
    ".tex": write_latex,
}
"""Suffix of a file -> the function that writes the table."""


def _cells(found: Comparison) -> list[list[str]]:
    """The head, and a row for each group; empty columns are left out."""
    head = ["runs", "seeds", "mean", "IQM"]
    beside = len(found.rows) > 1
    head += ["difference", "P(improvement)"] if beside else []
    head += [] if found.threshold is None else [f"steps to {found.threshold:g}"]
    rows = []
    for row in found.rows:
        cells = [row.name, str(row.seeds), _show(row.mean, row), _show(row.iqm, row)]
        cells += [_show(row.difference, row), _show(row.improvement, row)] if beside else []
        rows.append(cells + ([] if found.threshold is None else [_steps(row)]))
    return [head, *rows]


def _show(x: Interval | None, row: Row) -> str:
    if x is None:
        return ""
    return f"{x.value:.4g}" if row.seeds < 2 else f"{x.value:.4g} [{x.low:.4g}, {x.high:.4g}]"


def _steps(row: Row) -> str:
    steps = "never" if row.steps_to_threshold is None else f"{row.steps_to_threshold:,.0f}"
    return steps if row.reached in (0, row.seeds) else f"{steps} ({row.reached} of {row.seeds})"


def _notes(found: Comparison) -> Sequence[str]:
    notes = [f"{found.column} at {found.steps:,.0f} steps; [ ]: 95 % bootstrap interval over seeds"]
    others = found.rows[1:]
    if others:
        same = [row.is_paired for row in others]
        pairs = "pairs of equal seeds" if all(same) else "unlike seeds" if not any(same) else "pairs where seeds match"
        notes.append(f"difference and probability of improvement: to {found.rows[0].name}; differences of {pairs}")
    if any(0 < row.reached < row.seeds for row in found.rows) and found.threshold is not None:
        notes.append("steps to a score: median of the seeds that reached it; (n of m): n seeds of m did")
    elif found.threshold is not None:
        notes.append("steps to a score: median over seeds")
    if few := [row.name for row in found.rows if row.seeds < FEW]:
        notes.append(f"warning: fewer than {FEW} seeds, so the intervals say little: {'; '.join(few)}")
    return notes


def _escape(text: str) -> str:
    """Text of a cell for LaTeX; a minus before a number is one."""
    plain = "".join(LATEX.get(letter, letter) for letter in text)
    return re.sub(r"(?<![\w\\])-(?=\d)", "$-$", plain)
