"""Report of the offline suite: a row for each score, and a table over datasets and agents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.data import Reference
from rlmin.evaluation.scores import score
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.statistics import Interval, iqm_interval, mean_interval
from rlmin.suite.cells import Row
from rlmin.suite.report import as_csv

Line = dict[str, Any]


def write_report(rows: Sequence[Row], results: Path, *, name: str) -> str:
    """Write NAME-cells.csv (a row a seed and score), NAME.csv (means) and NAME.md into `results`; returns the table."""
    lines = flat(rows)
    write_atomic(results / f"{name}-cells.csv", as_csv(lines))
    write_atomic(results / f"{name}.csv", as_csv(summarise(lines)))
    text = as_markdown(lines)
    write_atomic(results / f"{name}.md", text.encode())
    return text


def flat(rows: Sequence[Row]) -> list[Line]:
    """One line for each cell, variant and target."""
    return [
        {
            "task": row["task"],
            "variant": found["variant"],
            "target": found["target"],
            "agent": row["encoder"],
            "seed": row["seed"],
            "steps": row["steps"],
            "score": found["score"],
            "return": found["return"],
            "success": found["success"],
            "length": found["length"],
            "behaviour": score(row["behaviour"], Reference(**row["reference"])),
            "best": score(row["best"], Reference(**row["reference"])),
            "random": row["reference"]["random"],
            "expert": row["reference"]["expert"],
            "seconds": row["seconds"],
        }
        for row in rows
        for found in row["results"]
    ]


def summarise(lines: Sequence[Line]) -> list[Line]:
    """A line for each task, variant, target and agent: the mean score over seeds and its interval."""
    table = []
    for key in dict.fromkeys((*_key(line), line["agent"]) for line in lines):
        chosen = [line for line in lines if (*_key(line), line["agent"]) == key]
        found = mean_interval([line["score"] for line in chosen])
        known = [line["success"] for line in chosen if line["success"] is not None]
        first = {name: chosen[0][name] for name in ("task", "variant", "target", "agent", "steps", "behaviour", "best")}
        first |= {"seeds": len(chosen), "score": found.value, "low": found.low, "high": found.high}
        table.append(first | {"success": float(np.mean(known)) if known else None})
    return table


def iqm(lines: Sequence[Line], agent: str) -> Interval | None:
    """Interquartile mean over tasks and seeds, for the first variant and target of the tasks that every agent has."""
    agents = {line["agent"] for line in lines}
    tasks: dict[str, list[float]] = {}
    for task in dict.fromkeys(line["task"] for line in lines):
        own = [line for line in lines if line["task"] == task]
        own = [line for line in own if _key(line) == _key(own[0])]
        if {line["agent"] for line in own} == agents:
            tasks[task] = [line["score"] for line in own if line["agent"] == agent]
    return iqm_interval(list(tasks.values())) if tasks else None


def as_markdown(lines: Sequence[Line]) -> str:
    """A Markdown table: a line for each dataset, variant and target, a column for each agent."""
    agents = list(dict.fromkeys(line["agent"] for line in lines))
    found = {(*_key(line), line["agent"]): line for line in summarise(lines)}
    text = [
        "Scores: 0 for random actions, 100 for the expert's sampled actions (T-mazes: the wrong, the right turn).",
        "Of the last checkpoint, greedy, in closed loop: mean over seeds, each in environments of its own [95 %",
        "bootstrap interval over seeds: of five it covers less]. target: the score asked for, best: that of the data's",
        "best episode; behaviour: the data's mean.",
        "The interquartile means are of the first variant and target of the tasks that every column has.",
        "",
        f"| data | variant | target | seeds | behaviour | best | {' | '.join(agents)} |",
        f"|---|---|---|---|---|---|{'---|' * len(agents)}",
    ]
    for key in dict.fromkeys(map(_key, lines)):
        own = [found.get((*key, agent)) for agent in agents]
        first = next(line for line in own if line is not None)
        cells = " | ".join("" if line is None else _interval(line) for line in own)
        known = f"{key[0]} | {key[1]} | {key[2]} | {first['seeds']} | {first['behaviour']:.1f} | {first['best']:.1f}"
        text.append(f"| {known} | {cells} |")
    means = [iqm(lines, agent) for agent in agents]
    shown = ["" if one is None else f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]" for one in means]
    text.append(f"| interquartile mean | | | | | | {' | '.join(shown)} |")
    return "\n".join(text) + "\n"


def _key(line: Line) -> tuple[Any, ...]:
    return line["task"], line["variant"], line["target"]


def _interval(line: Line) -> str:
    return f"{line['score']:.1f} [{line['low']:.1f}, {line['high']:.1f}]"
