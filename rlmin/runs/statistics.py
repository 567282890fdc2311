"""Means over seeds and tasks with bootstrap intervals.

The interquartile mean over all runs of all tasks is the mean of the middle half of the scores; its interval resamples
seeds within each task (stratified), so tasks keep their weight.

Source: Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice (arXiv:2108.13264).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlmin.checks import old_names

Array = np.ndarray[Any, np.dtype[np.float64]]

DRAWS = 10_000


class Interval(NamedTuple):
    """A statistic and its 95 % percentile-bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interquartile_mean(scores: Array, axis: int = -1) -> Array:
    """The mean over an axis of n numbers, without the lowest and highest n // 4 of them."""
    scores = np.moveaxis(scores, axis, -1)
    cut = scores.shape[-1] // 4
    middle: Array = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)
    return middle


def mean_interval(scores: Sequence[float]) -> Interval:
    """The mean over seeds; for one seed the interval is the value itself."""
    return _interval([np.asarray(scores, dtype=np.float64)], lambda x: x.mean(-1))


def mean_band(curves: Array) -> tuple[Array, Array, Array]:
    """[n, points] -> mean, low and high [points]: `mean_interval` of every point over the n seeds."""
    random = np.random.default_rng(0)
    drawn = random.integers(len(curves), size=(DRAWS, len(curves)))
    share = np.stack([(drawn == seed).mean(1) for seed in range(len(curves))], axis=1)  # [draws, n] of each seed
    low, high = np.quantile(share @ curves, [0.025, 0.975], axis=0)
    return curves.mean(0), low, high


def iqm_band(curves: Array) -> tuple[Array, Array, Array]:
    """[n, points] -> interquartile mean, low and high [points], over the n seeds."""
    from scipy.stats import bootstrap

    options: dict[str, Any] = {"method": "percentile", "n_resamples": 2_000, "batch": 50, "vectorized": True}
    found = bootstrap(
        (curves.T,), interquartile_mean, axis=-1, rng=np.random.default_rng(0), **options
    ).confidence_interval
    return interquartile_mean(curves, 0), found.low, found.high


def iqm_interval(tasks: Sequence[Sequence[float]]) -> Interval:
    """The interquartile mean over the runs of all tasks, given one sequence of scores (over seeds) per task."""
    return _interval([np.asarray(scores, dtype=np.float64) for scores in tasks], interquartile_mean)


def normalise(score: float, floor: float, ceiling: float) -> float:
    """(score - floor) / (ceiling - floor): 0 without memory, 1 perfect."""
    return (score - floor) / (ceiling - floor)


def _interval(strata: Sequence[Array], statistic: Callable[[Array], Array]) -> Interval:
    random = np.random.default_rng(0)
    value = float(statistic(np.concatenate(strata)))
    draws = [scores[random.integers(len(scores), size=(DRAWS, len(scores)))] for scores in strata]
    low, high = np.quantile(statistic(np.concatenate(draws, axis=1)), [0.025, 0.975])
    return Interval(value, float(low), float(high))


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, normalised="normalise")
