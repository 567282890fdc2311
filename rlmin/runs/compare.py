"""Comparing runs: scores at equal budgets, with the statistics of scipy.

A group is a set of runs that differ only in the seed. For every group: mean and interquartile mean of the seeds'
scores, and the steps until a threshold was reached. Against the first group, the baseline: the difference of the means,
and the probability that a run of the group scores more than a run of the baseline. Intervals are 95 % percentile
bootstraps over seeds; if both groups have the same seeds, differences are paired.

Source: Agarwal et al. 2021, Deep reinforcement learning at the edge of the statistical precipice (arXiv:2108.13264).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.checks import check_names
from rlmin.runs.curves import read_columns, read_curve
from rlmin.runs.groups import Group, group_runs, read_seed, read_task
from rlmin.runs.statistics import Interval, interquartile_mean

Array = np.ndarray[Any, np.dtype[np.float64]]

SCORES = ("eval/mean_reward", "rollout/ep_rew_mean")
"""Columns to compare by default: the first one that every run has."""
ALIKE = 1.05
"""Largest ratio of two budgets that count as equal: they may differ by a rollout."""
DRAWS = 9_999


@dataclass(frozen=True, kw_only=True)
class Row:
    """The results of one group."""

    name: str
    seeds: int
    mean: Interval
    iqm: Interval
    steps_to_threshold: float | None  # Median over the seeds that reached it; None: there is no threshold, or none did
    reached: int  # Seeds that reached the threshold
    difference: Interval | None  # Difference of the means from the baseline's; None for the baseline
    is_paired: bool  # Whether the difference is paired by seed
    improvement: Interval | None  # P(score > score of the baseline)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows, the baseline first, and the compared column."""

    column: str
    steps: float  # Steps at which scores were taken
    threshold: float | None
    rows: tuple[Row, ...]


def compare_runs(
    folders: Sequence[Path], *, column: str | None = None, at: float | None = None, threshold: float | None = None
) -> Comparison:
    """Compare groups of runs by a column of their metrics.

    Args:
        folders: runs; the group of the first is the baseline.
        column: column of metrics.csv, more is better; None: the first of `SCORES` that all runs have.
        at: step at which scores are taken; None: the end, which has to be the same for all runs.
        threshold: score whose first step is reported.

    Raises:
        ValueError: runs of other tasks or budgets, a column that a run lacks, or a step that a run has not reached.
    """
    groups = group_runs(folders)
    _check_tasks(groups)
    runs = [folder for group in groups for folder in group.folders]
    column = _column(runs, column)
    curves = {folder: read_curve(folder, column) for folder in runs}
    end = _budget(curves, at)
    scores = [_scores(group, curves, end) for group in groups]
    rows = [
        _row(group.name, own, scores[0] if i else None, _first_steps(group, curves, threshold, end))
        for i, (group, own) in enumerate(zip(groups, scores, strict=True))
    ]
    return Comparison(column=column, steps=end, threshold=threshold, rows=tuple(rows))


def _check_tasks(groups: Sequence[Group]) -> None:
    """Raise a ValueError if the groups had different tasks."""
    first, *others = [(group.folders[0], read_task(group.folders[0])) for group in groups]
    for folder, task in others:
        for key in {**first[1], **task}:
            if task.get(key) != first[1].get(key):
                found = f"{key} is {first[1].get(key)} in {first[0]}, {task.get(key)} in {folder}"
                raise ValueError(f"unlike tasks do not compare: {found}")


def _column(runs: Sequence[Path], column: str | None) -> str:
    """The given column, or the first of `SCORES`; a ValueError if a run lacks it."""
    known = {folder: read_columns(folder) for folder in runs}
    if column is None:
        column = next((name for name in SCORES if all(name in names for names in known.values())), None)
        if column is None:
            raise ValueError(f"not every run has logged {' or '.join(SCORES)}: name a column by --column")
    for folder, names in known.items():
        if column not in names:
            check_names("column", [column], {name for of in known.values() for name in of})
            raise ValueError(f"{folder}: has logged no {column}")
    return column


def _budget(curves: dict[Path, tuple[list[float], list[float]]], at: float | None) -> float:
    """The step at which scores are taken; a ValueError if budgets differ, or a run ended earlier."""
    ends = {folder: x[-1] for folder, (x, _) in curves.items() if x}
    shortest, longest = min(ends, key=lambda one: ends[one]), max(ends, key=lambda one: ends[one])
    if at is None and ends[longest] > ALIKE * ends[shortest]:
        raise ValueError(
            f"unlike budgets do not compare: {shortest} ends at {ends[shortest]:,.0f} steps, {longest} at "
            f"{ends[longest]:,.0f}; compare at a step that all reached: --at {ends[shortest]:.0f}"
        )
    if at is not None and ends[shortest] < at / ALIKE:
        raise ValueError(f"at={at:,.0f}: {shortest} ends at {ends[shortest]:,.0f} steps")
    return ends[longest] if at is None else at


def _scores(group: Group, curves: dict[Path, tuple[list[float], list[float]]], end: float) -> dict[Hashable, float]:
    """Seed -> score at `end`; runs of one seed count as one, their mean."""
    found = dict[Hashable, list[float]]()
    for folder in group.folders:
        x, y = curves[folder]
        before = [score for step, score in zip(x, y, strict=True) if step <= end]
        if not before:
            raise ValueError(f"{folder}: has logged no score up to step {end:,.0f}")
        found.setdefault(read_seed(folder), []).append(before[-1])
    return {seed: sum(of) / len(of) for seed, of in found.items()}


def _first_steps(
    group: Group, curves: dict[Path, tuple[list[float], list[float]]], threshold: float | None, end: float
) -> list[float | None]:
    """The first step at which each run reached the threshold; None: never."""
    if threshold is None:
        return []
    return [
        next((step for step, score in zip(*curves[folder], strict=True) if score >= threshold and step <= end), None)
        for folder in group.folders
    ]


def _row(name: str, own: dict[Hashable, float], base: dict[Hashable, float] | None, first: list[float | None]) -> Row:
    scores = np.array(list(own.values()))
    there = [step for step in first if step is not None]
    difference, improvement, paired = None, None, False
    if base is not None:
        paired = set(own) == set(base)
        other = np.array([base[seed] for seed in own] if paired else list(base.values()))
        difference = interval((scores, other), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=paired)
        improvement = interval((scores, other), probability_of_improvement)
    return Row(
        name=name,
        seeds=len(scores),
        mean=interval((scores,), lambda x, axis: x.mean(axis)),
        iqm=interval((scores,), interquartile_mean),
        steps_to_threshold=float(np.median(there)) if there else None,
        reached=len(there),
        difference=difference,
        is_paired=paired,
        improvement=improvement,
    )


def probability_of_improvement(x: Array, y: Array, axis: int = -1) -> Array:
    """P(X > Y) + P(X = Y) / 2 over all pairs of runs: the statistic U of Mann and Whitney, as a share."""
    from scipy.stats import mannwhitneyu

    share: Array = mannwhitneyu(x, y, axis=axis, method="asymptotic").statistic / (x.shape[axis] * y.shape[axis])
    return share


def interval(samples: tuple[Array, ...], statistic: Callable[..., Array], *, paired: bool = False) -> Interval:
    """A statistic of one or two samples with its 95 % percentile-bootstrap interval, a point for single numbers."""
    from scipy.stats import bootstrap

    value = float(statistic(*samples, axis=-1))
    if min(map(len, samples)) < 2:
        return Interval(value, value, value)
    options: dict[str, Any] = {"paired": paired, "method": "percentile", "n_resamples": DRAWS, "vectorized": True}
    found = bootstrap(samples, statistic, axis=-1, rng=np.random.default_rng(0), batch=1_000, **options)
    return Interval(value, float(found.confidence_interval.low), float(found.confidence_interval.high))
