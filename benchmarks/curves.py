"""Learning curves in a CSV file, and pictures of them: a mean over seeds with the range of the seeds.

A file has a row for every point: encoder, seed, steps, value. The scripts beside this one write it next to their table,
so that a picture can be drawn again without training.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[tuple[str, int], tuple[Sequence[float], Sequence[float]]]
"""(encoder, seed) -> steps, values."""

NAMES = {"min_gru": "minGRU", "min_lstm": "minLSTM", "gru": "GRU", "lstm": "LSTM", "mlp": "no memory"}
COLOURS = {"min_gru": "C0", "min_lstm": "C1", "gru": "C2", "lstm": "C3", "mlp": "0.5"}
POINTS = 300


def write_curves(file: Path, curves: Curves) -> None:
    """Write every point of every curve."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["encoder", "seed", "steps", "value"])
        for (encoder, seed), points in curves.items():
            writer.writerows([encoder, seed, int(x), f"{y:.4g}"] for x, y in zip(*points, strict=True))


def read_curves(file: Path) -> Curves:
    """The curves of a file that `write_curves` wrote."""
    curves: Curves = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(line for line in lines if not line.startswith("#")):
            steps, values = curves.setdefault((row["encoder"], int(row["seed"])), ([], []))
            steps.append(float(row["steps"]))
            values.append(float(row["value"]))
    return curves


def smooth(values: Sequence[float], width: int) -> "np.ndarray":
    """Mean over a sliding window of `width` points, which is narrower at both ends."""
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def draw_bands(axes: "Axes", curves: Curves, *, labels: Mapping[str, str] = NAMES, width: int = 1) -> None:
    """Draw one line for each encoder: the mean over its seeds, shaded from the worst to the best seed.

    Args:
        axes: where to draw.
        curves: all of them.
        labels: what the legend calls an encoder; the number of seeds is added.
        width: points of the sliding mean of each curve.
    """
    for encoder in dict.fromkeys(encoder for encoder, _ in curves):
        own = [(x, smooth(y, width)) for (name, _), (x, y) in curves.items() if name == encoder]
        grid = np.linspace(max(x[0] for x, _ in own), min(x[-1] for x, _ in own), POINTS)
        values = np.stack([np.interp(grid, x, y) for x, y in own])
        colour, seeds = COLOURS.get(encoder, "k"), f"{len(own)} seed{'s' if len(own) > 1 else ''}"
        axes.plot(grid, values.mean(0), color=colour, label=f"{labels.get(encoder, encoder)} ({seeds})")
        axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
