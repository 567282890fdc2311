"""Learning curves: logged values of runs, and their mean over seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlmin.checks import old_names
from rlmin.runs.logs import METRICS, STEPS, read_rows
from rlmin.runs.statistics import mean_band

Array = np.ndarray[Any, np.dtype[np.float64]]

SECONDS = "time/time_elapsed"
"""A column for the horizontal axis, as STEPS is."""

POINTS = 400
"""Largest number of points of a mean curve."""


class Curve(NamedTuple):
    """The mean of runs and its 95 % interval; for one run, low and high are the curve itself."""

    x: Array
    mean: Array
    low: Array
    high: Array


def read_columns(folder: Path) -> list[str]:
    """Names of the logged columns; a ValueError if the run has no metrics."""
    return list(dict.fromkeys(name for row in _rows(folder) for name in row))


def read_curve(folder: Path, column: str, *, over: str = STEPS) -> tuple[list[float], list[float]]:
    """One column of a run's metrics over another; rows that lack one of the two are left out.

    Args:
        folder: the run.
        column: a name in `read_columns`; any other has no rows.
        over: column of x.

    Raises:
        ValueError: the run has no metrics, or the column is not numeric.
    """
    rows = [row for row in _rows(folder) if row.get(column) and row.get(over)]
    try:
        return [float(row[over]) for row in rows], [float(row[column]) for row in rows]
    except ValueError as error:
        raise ValueError(f"{Path(folder) / METRICS}: {column}: expected numbers ({error})") from None


def smooth_curve(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, without a bias towards its beginning.

        y[i] = sum over j <= i of weight^(i-j) * values[j], divided by the sum of the weights

    Args:
        values: values of one curve.
        weight: weight of the past, in [0, 1); 0 changes nothing.
    """
    total = share = 0.0
    out = []
    for value in values:
        total, share = weight * total + value, weight * share + 1
        out.append(total / share)
    return out


def mean_curve(
    curves: Sequence[tuple[Sequence[float] | Array, Sequence[float] | Array]],
    *,
    band: Callable[[Array], tuple[Array, Array, Array]] = mean_band,
) -> Curve:
    """The mean of curves over their common x; linear between their points.

    Args:
        curves: ascending x and values of each curve.
        band: function from the values [curves, points] of several curves to middle, low and high.

    Raises:
        ValueError: they have no x in common.
    """
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if first > last:
        raise ValueError(f"the curves have nothing in common: one begins at {first:g}, another ends at {last:g}")
    points = np.unique(np.concatenate([np.asarray(x, dtype=np.float64) for x, _ in curves]))
    points = points[(points >= first) & (points <= last)]
    grid = points if len(points) <= POINTS else np.linspace(first, last, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return Curve(grid, *(band(values) if len(values) > 1 else (values[0],) * 3))


def _rows(folder: Path) -> list[dict[str, str]]:
    path = Path(folder) / METRICS
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    if not path.exists():
        raise ValueError(f"{folder}: expected {METRICS} in it")
    rows = [{name: x for name, x in row.items() if name and x} for row in read_rows(path)[1]]
    if not rows:
        raise ValueError(f"{path}: expected at least one row; was training stopped before its first update?")
    return rows


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, smoothed="smooth_curve")
