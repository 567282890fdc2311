"""Plots: learning curves of runs, as PNG."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rlmin.checkpoint import write_atomic
from rlmin.logs import METRICS

COLUMNS = {
    "rollout/ep_rew_mean": "return, mean of 100 episodes",
    "rollout/success_rate": "success rate",
    "train/held_out_loss": "open-loop loss, episodes kept out",
    "train/held_out_accuracy": "share of actions predicted, episodes kept out",
}
OTHERWISE = {"train/loss": "loss"}
"""Drawn where a run has none of the columns."""


def read_curve(folder: Path, column: str) -> tuple[list[float], list[float]]:
    """Environment steps and the values of one column of a run's metrics; rows without the value are left out.

    Raises:
        ValueError: the run has no metrics.
    """
    path = Path(folder) / METRICS
    if not path.exists():
        raise ValueError(f"{folder}: expected {METRICS} in it")
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get(column)]
    return [float(row["time/total_timesteps"]) for row in rows], [float(row[column]) for row in rows]


def plot_runs(folders: Sequence[Path], file: Path) -> None:
    """Draw return, and success where known, of every run over environment steps.

    Args:
        folders: runs; their names are the legend.
        file: PNG to write.
    """
    from io import BytesIO

    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    labels = COLUMNS | OTHERWISE
    curves = {column: {folder: read_curve(folder, column) for folder in folders} for column in labels}
    shown = [column for column in COLUMNS if any(x for x, _ in curves[column].values())] or list(OTHERWISE)
    figure = Figure(figsize=(6 * len(shown), 4), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for folder, (steps, values) in curves[column].items():
            if steps:
                axes.plot(steps, values, marker="o" if len(steps) == 1 else None, label=Path(folder).name)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(labels[column])
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    image = BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomic(file, image.getvalue())
