"""Report of a suite: a row for each cell, a table over tasks and encoders, curves and a heat map."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.curves import read_curve
from rlmin.runs.statistics import Interval, iqm_interval, mean_interval, normalise
from rlmin.suite.cells import Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELLS = ["task", "encoder", "seed", "steps", "final", "best", "success", "floor", "ceiling", "seconds"]
PROTOCOLS = {
    "final": "return of the final policy, greedy, on held-out episodes",
    "best": "highest mean of 100 training episodes during training (as POPGym publishes; biased upward)",
}


def write_report(rows: Sequence[Row], cells: Sequence[Cell], out: Path, results: Path, *, name: str) -> str:
    """Write NAME-cells.csv, NAME.csv, NAME.md, NAME-curves.png and NAME-scores.png into `results`; returns the table.

    Args:
        rows: finished cells.
        cells: the same cells, for their curves.
        out: folder of the run folders.
        results: folder of the report.
        name: of the files.
    """
    write_atomic(results / f"{name}-cells.csv", as_csv([{key: row[key] for key in CELLS} for row in rows]))
    summary = summarise(rows)
    write_atomic(results / f"{name}.csv", as_csv(summary))
    text = as_markdown(rows)
    write_atomic(results / f"{name}.md", text.encode())
    for kind, figure in (("curves", draw_curves(rows, cells, out)), ("scores", draw_scores(rows))):
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=110)
        write_atomic(results / f"{name}-{kind}.png", image.getvalue())
    return text


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each task and encoder: means and intervals over seeds, both protocols, floor and ceiling."""
    table = []
    for task, encoder in dict.fromkeys((row["task"], row["encoder"]) for row in rows):
        chosen = [row for row in rows if (row["task"], row["encoder"]) == (task, encoder)]
        line: dict[str, Any] = {"task": task, "encoder": encoder, "seeds": len(chosen), "steps": chosen[0]["steps"]}
        for protocol in PROTOCOLS:
            found = mean_interval([row[protocol] for row in chosen])
            line |= {protocol: found.value, f"{protocol} low": found.low, f"{protocol} high": found.high}
        known = [row["success"] for row in chosen if row["success"] is not None]
        line["success"] = float(np.mean(known)) if known else None
        line |= {"floor": chosen[0]["floor"], "ceiling": chosen[0]["ceiling"]}
        table.append(line)
    return table


def iqm(rows: Sequence[Row], encoder: str, protocol: str) -> Interval | None:
    """Interquartile mean of normalised scores, over the tasks with known bounds that all encoders played."""
    everyone = {row["encoder"] for row in rows}
    played = {task: {row["encoder"] for row in rows if row["task"] == task} for task in {row["task"] for row in rows}}
    tasks: dict[str, list[float]] = {}
    for row in rows:
        if row["encoder"] == encoder and row["floor"] is not None and played[row["task"]] == everyone:
            share = normalise(row[protocol], row["floor"], row["ceiling"])
            tasks.setdefault(row["task"], []).append(share)
    return iqm_interval(list(tasks.values())) if tasks else None


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table: a line for each task, a column for each encoder, with final, its interval and best."""
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    summary = {(line["task"], line["encoder"]): line for line in summarise(rows)}
    lines = [
        *(f"{protocol}: {meaning}." for protocol, meaning in PROTOCOLS.items()),
        "Mean over seeds [95 % bootstrap interval over seeds, of final]; best in brackets. All play the same episodes.",
        "The interquartile means are over the tasks that every column has.",
        "",
        f"| task | steps | seeds | floor | ceiling | {' | '.join(encoders)} |",
        f"|---|---|---|---|---|{'---|' * len(encoders)}",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [summary.get((task, encoder)) for encoder in encoders]
        first = next(line for line in own if line is not None)
        known = [_number(first[name]) for name in ("floor", "ceiling")]
        scores = " | ".join("" if line is None else _score(line) for line in own)
        counts = [str(line["seeds"]) for line in own if line is not None]
        seeds = counts[0] if len(set(counts)) == 1 else ", ".join(counts)  # one for each column with seeds
        lines.append(f"| {task} | {first['steps']:,} | {seeds} | {known[0]} | {known[1]} | {scores} |")
    for protocol in PROTOCOLS:
        means = [iqm(rows, encoder, protocol) for encoder in encoders]
        lines.append(f"| IQM of normalised scores, {protocol} | | | 0 | 1 | {' | '.join(map(_number, means))} |")
    return "\n".join(lines) + "\n"


def draw_curves(rows: Sequence[Row], cells: Sequence[Cell], out: Path) -> "Figure":
    """Mean return over steps: a panel for each task, a line for each encoder, shaded from worst to best seed."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    names = list(dict.fromkeys(row["encoder"] for row in rows))
    colours = {name: "0.5" if name == "mlp" else f"C{number}" for number, name in enumerate(names)}
    figure = Figure(figsize=(4.2 * columns, 3.0 * lines), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for panel, task in zip(panels, tasks, strict=False):
        row = next(row for row in rows if row["task"] == task)
        _draw_task(panel, task, [cell for cell in cells if cell.task == task], out, colours)
        for name in ("floor", "ceiling"):
            if row[name] is not None:
                panel.axhline(row[name], color="0.5", linestyle="--", linewidth=0.8)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    shown = [panels[0].plot([], color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=shown, loc="outside upper right", ncols=len(shown), fontsize="small")
    return figure


def _draw_task(panel: "Axes", task: str, cells: Sequence[Cell], out: Path, colours: dict[str, str]) -> None:
    for encoder in dict.fromkeys(cell.encoder for cell in cells):
        curves = [read_curve(cell.folder(out), "rollout/ep_rew_mean") for cell in cells if cell.encoder == encoder]
        grid = np.linspace(0, min(steps[-1] for steps, _ in curves), 200)
        values = np.stack([np.interp(grid, steps, curve) for steps, curve in curves])
        colour = colours[encoder]
        panel.plot(grid / 1e6, values.mean(0), color=colour)
        panel.fill_between(grid / 1e6, values.min(0), values.max(0), color=colour, alpha=0.15)
    panel.set_title(task, fontsize="small")
    panel.set_xlabel("million environment steps", fontsize="small")
    panel.grid(alpha=0.3)


def draw_scores(rows: Sequence[Row]) -> "Figure":
    """Heat map of the final scores: coloured by the normalised score, labelled with the return.

    Tasks go down and encoders across, or the other way round where there are more encoders.
    """
    from matplotlib.figure import Figure

    names = {key: list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "encoder")}
    across, down = ("task", "encoder") if len(names["encoder"]) > len(names["task"]) else ("encoder", "task")
    shares = np.full((len(names[down]), len(names[across])), np.nan)
    figure = Figure(figsize=(3.6 + 1.1 * shares.shape[1], 2.0 + 0.36 * shares.shape[0]), layout="constrained")
    axes = figure.subplots()
    for line in summarise(rows):
        at = names[down].index(line[down]), names[across].index(line[across])
        if line["floor"] is not None:
            shares[at] = normalise(line["final"], line["floor"], line["ceiling"])
        ink = "white" if shares[at] < 0.55 else "black"
        axes.text(at[1], at[0], f"{line['final']:.2f}", ha="center", va="center", fontsize="small", color=ink)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    labels = [fill(name, 16) for name in names[across]]
    axes.set_xticks(range(len(labels)), labels, fontsize="small")
    axes.set_yticks(range(len(names[down])), names[down], fontsize="small")
    axes.set_title("final return, held-out episodes", fontsize="medium")
    figure.colorbar(image, label="0 no memory, 1 perfect")
    return figure


def _score(line: dict[str, Any]) -> str:
    interval = f"[{line['final low']:.3f}, {line['final high']:.3f}]"
    return f"{line['final']:.3f} {interval} ({line['best']:.3f})"


def _number(x: float | Interval | None) -> str:
    return "" if x is None else f"{x:.3g}" if isinstance(x, float | int) else str(x)


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """At least one row, all with the same columns, as the bytes of a CSV file; floats to six digits."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()})
    return file.getvalue().encode()
