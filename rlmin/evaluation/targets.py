"""Targets: the returns that a return-conditioned policy achieves against those it was asked for.

All targets are played in one batch of environments, each row with its own target, one step of every row at a time. The
policy carries its memory from step to step, so a step costs the same whatever the length of the episode.
"""

import csv
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import VectorEnv

from rlmin.evaluation.evaluate import Evaluation, share
from rlmin.evaluation.play import LONGEST, PolicyActor, play_episodes
from rlmin.evaluation.scores import NO_REFERENCE, describe_reference, score, unscore, width
from rlmin.policy import Policy
from rlmin.policy.fit import check_spaces, is_conditioned
from rlmin.runs.checkpoint import write_atomic
from rlmin.runs.own_files import check_not_of_run
from rlmin.settings import Count, Positive, Seed, check_setting
from rlmin.settings.boundary import checked
from rlmin.vector import adapt
from rlmin.wrappers.return_to_go import RETURN_TO_GO, VectorReturnToGo

if TYPE_CHECKING:  # tensordict is slow to import
    from rlmin.data import Reference


ROUNDING = 1e-4
"""Share by which a target may exceed the returns of the data: these are sums of float32."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The result of one target."""

    target: float  # env units
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """Asked and achieved returns of a return-conditioned policy.

    Attributes:
        asked: one entry a target, in the order they were given.
        env: the environment, in words.
        reference: the returns that count as 0 and 100; None: no scores.
        data: [E] returns of the training episodes, or their quantiles; None: unknown.
    """

    asked: tuple[Asked, ...]
    env: str = ""
    reference: "Reference | None" = None
    data: np.ndarray | None = None

    @property
    def best(self) -> Asked:
        """The target with the largest mean return."""
        return max(self.asked, key=lambda one: one.evaluation.mean_return)

    def rows(self) -> list[dict[str, float | int | None]]:
        """One row a target: the asked and achieved return, in env units and, with a reference, as a score."""
        return [self._row(one) for one in self.asked]

    def _row(self, one: Asked) -> dict[str, float | int | None]:
        found, reference = one.evaluation, self.reference
        row: dict[str, float | int | None] = {
            "target_return": one.target,
            "return_mean": found.mean_return,
            "return_se": found.return_error,
            "length_mean": float(found.lengths.mean()),
            "success_rate": found.success_rate,
            "episodes": len(found.returns),
        }
        if reference is not None:
            row["target_score"] = score(one.target, reference)
            row["score_mean"] = score(found.mean_return, reference)
            row["score_se"] = 100 * found.return_error / abs(width(reference))
        return row

    def __str__(self) -> str:
        scored = self.reference is not None
        heads = ["asked", "return", "s.e.", *(["asked score", "score", "s.e."] if scored else [])]
        lines = [[*heads, "length", "success", "episodes"]]
        for row in self.rows():
            keys = ["target_return", "return_mean", "return_se"]
            cells = [_number(row[key], 3) for key in keys]
            if scored:
                cells += [_number(row[key], 1) for key in ("target_score", "score_mean", "score_se")]
            won = row["success_rate"]
            cells += [_number(row["length_mean"], 1), "-" if won is None else f"{100 * won:.1f} %"]
            lines.append([*cells, str(row["episodes"])])
        sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        table = ["  ".join(cell.rjust(size) for cell, size in zip(line, sizes, strict=True)) for line in lines]
        legend = NO_REFERENCE
        if self.reference is not None:
            legend = f"score = 100 (return - random) / (expert - random); {describe_reference(self.reference)}"
        return "\n".join([*([f"targets on {self.env}"] if self.env else []), *table, *self._remarks(), legend])

    def _remarks(self) -> list[str]:
        """The returns of the data, and remarks on the table."""
        lines = []
        if self.data is not None:
            mean, low, high = float(self.data.mean()), float(self.data.min()), float(self.data.max())
            lines.append(f"the data: mean return {mean:.3f}, from {low:.3f} to {high:.3f}")
            best = self.best.evaluation
            if best.mean_return + 2 * best.return_error < mean:  # a nan error says nothing, here and below
                lines.append("note: below that mean at every target: too little training, or a different environment?")
        known = [one for one in self.asked if self.data is None or not outside([one.target], self.data)] or self.asked
        least, most = (choose(known, key=lambda one: one.target) for choose in (min, max))
        gain = most.evaluation.mean_return - least.evaluation.mean_return
        error = math.hypot(least.evaluation.return_error, most.evaluation.return_error)
        if gain + 2 * error < 0.1 * (most.target - least.target):
            lines.append("note: the achieved return hardly depends on the target")
        return lines

    def write_csv(self, file: Path) -> None:
        """`rows()` and the reference scores with their source, as CSV; the file appears whole or not at all."""
        reference = self.reference
        entries: dict[str, Any] = {"env": self.env}
        if reference is not None:
            entries |= {"reference_random": reference.random, "reference_expert": reference.expert}
            entries |= {"reference_source": reference.source}
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [*self.rows()[0], *entries])
        writer.writeheader()
        writer.writerows([row | entries for row in self.rows()])
        check_not_of_run(Path(file))
        write_atomic(Path(file), text.getvalue().encode())

    def plot(self, file: Path) -> None:
        """Achieved over asked return with 1.96 standard errors, the identity, and the returns of the data, as PNG."""
        from matplotlib.figure import Figure  # without pyplot: no global state, no window

        asked = np.array([one.target for one in self.asked])
        achieved = np.array([one.evaluation.mean_return for one in self.asked])
        error = 1.96 * np.nan_to_num([one.evaluation.return_error for one in self.asked])
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        low, high = asked.min(), asked.max()
        if self.data is not None:
            low, high = min(low, self.data.min()), max(high, self.data.max())
            behind = axes.twinx()
            behind.hist(self.data, bins=40, color="0.85")
            behind.set_yticks([])
            axes.set_zorder(behind.get_zorder() + 1)
            axes.patch.set_visible(False)
            axes.plot([], [], color="0.85", linewidth=6, label="returns in the data")
        axes.plot([low, high], [low, high], color="0.5", linestyle="--", label="achieved = asked")
        axes.errorbar(asked, achieved, yerr=error, fmt="o", capsize=3, label="achieved, 95 % interval")
        axes.set(xlabel="asked return", ylabel="achieved return", title=self.env)
        if self.reference is not None:
            ends = (lambda x: score(x, self.reference), lambda x: unscore(x, self.reference))
            axes.secondary_xaxis("top", functions=ends).set_xlabel("asked score")
        axes.grid(alpha=0.3)
        axes.legend()
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        write_atomic(Path(file), image.getvalue())


@checked
def evaluate_targets(
    policy: Policy,
    make_vector: Callable[[int], VectorEnv[Any, Any, Any]],
    targets: Sequence[float],
    *,
    episodes: Count = 100,
    num_envs: int = 64,
    deterministic: bool = True,
    seed: Seed | None = 0,
    return_scale: Positive,
    reference: "Reference | None" = None,
    data: np.ndarray | None = None,
    env: str = "",
    max_steps: Count = LONGEST,
) -> TargetReport:
    """Ask a return-conditioned policy for several returns, and measure what it achieves.

    Args:
        policy: reads the leaf "return_to_go"; `DecisionAgent` has one.
        make_vector: number of rows -> gymnasium vector environment, without `ReturnToGo`, in any autoreset mode.
        targets: returns to ask for, env units.
        episodes: of each target.
        num_envs: rows to play at once, over all targets; each target has at least one.
        deterministic: the most likely action instead of a sample.
        seed: of environments and samples; None draws both anew.
        return_scale: env units that the policy sees as 1: `agent.return_scale`.
        reference: returns that count as 0 and 100.
        data: [E] returns of the training episodes, or their quantiles.
        env: the environment in words, for the report.
        max_steps: largest length of an episode.

    Raises:
        ValueError: no target, a target that is not finite, a policy that takes none, spaces that differ, or an
            episode that does not end.

    Warns:
        UserWarning: a target lies outside the returns of the data.
    """
    targets = check_setting("targets", targets, tuple[float, ...])
    if not targets:
        raise ValueError("targets: expected at least one return to ask for, got none")
    if not is_conditioned(policy):
        raise ValueError(f"this policy reads no {RETURN_TO_GO!r}, so it takes no target return; use `evaluate`")
    warn_of_outliers(targets, data)
    rows = max(1, min(num_envs // len(targets), episodes))
    wrapped = VectorReturnToGo(make_vector(rows * len(targets)), np.repeat(targets, rows).tolist(), scale=return_scale)
    vector = adapt(wrapped, device=next(policy.parameters()).device)
    try:
        check_spaces(policy, vector)
        actor = PolicyActor(policy, vector.num_envs, deterministic=deterministic, seed=seed)
        played = play_episodes(
            vector, actor, quota=share(episodes, rows) * len(targets), seed=seed, max_steps=max_steps
        )
    finally:
        vector.close()
    asked = [
        Asked(target=target, evaluation=Evaluation.of(list(chain.from_iterable(played[i * rows : (i + 1) * rows]))))
        for i, target in enumerate(targets)
    ]
    return TargetReport(asked=tuple(asked), env=env, reference=reference, data=data)


def warn_of_outliers(targets: Sequence[float], data: np.ndarray | None) -> None:
    """Warn of targets above or below all episodes of the data: the policy has never seen them."""
    if data is None:
        return
    far = outside(targets, data)
    if far:
        beyond, low, high = ", ".join(f"{target:g}" for target in far), float(np.min(data)), float(np.max(data))
        warnings.warn(
            f"target {beyond}: outside the returns of the data, {low:g} to {high:g}; nothing was learned there",
            stacklevel=3,
        )


def outside(targets: Sequence[float], data: np.ndarray) -> list[float]:
    """The targets that lie above or below every return of the data."""
    low, high = float(np.min(data)), float(np.max(data))
    slack = ROUNDING * max(abs(low), abs(high))
    return [target for target in targets if not low - slack <= target <= high + slack]


def _number(x: float | int | None, digits: int) -> str:
    return "-" if x is None or math.isnan(x) else f"{x:.{digits}f}"
