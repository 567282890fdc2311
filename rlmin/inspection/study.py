"""Study: all measurements for the report on one policy."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlmin.evaluation.evaluate import Evaluation
from rlmin.inspection.attribution import Attribution, attribution, by_lag, mean_input
from rlmin.inspection.delays import Varied, knob, play_varied
from rlmin.inspection.lengths import Norms, is_bounded_state, norms
from rlmin.inspection.recurrence import deletion_error, recurrences
from rlmin.inspection.subject import Played, Subject, play_and_keep
from rlmin.inspection.time_scales import TimeScales, time_scales
from rlmin.inspection.trace import mixers, record_trace
from rlmin.inspection.wipe import Forgetting, has_memory, measure_forgetting, wipe_returns
from rlmin.policy import Policy
from rlmin.spaces import leaf_spaces

ROWS = 16
"""Environments whose episodes are recorded, or whose memory is measured, step by step."""
LONGEST = 2000
"""Largest number of recorded steps of an episode; a longer one is explained up to there."""
KEPT = 1 << 28
"""Approximate limit of recorded observations in bytes: pictures get fewer rows, large ones fewer steps."""
BUDGET = 15.0
"""Approximate seconds for the evaluations of one section."""
VARIANTS = 32_000
"""Steps to run for one episode and layer; in longer episodes consecutive steps are grouped."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One episode, and which past steps drove its actions."""

    episode: Played  # of one row
    attribution: Attribution
    moment: tuple[int, int] | None  # the step and the group of past steps with the largest effect on it; None: no past


@dataclass(frozen=True, kw_only=True)
class Study:
    """The measurements."""

    subject: Subject
    evaluation: Evaluation
    episodes: Played  # ROWS rows, or fewer with pictures
    scales: tuple[TimeScales, ...]  # one for each layer whose cell has terms
    explained: tuple[Explained, ...]
    lags: tuple[tuple[Tensor, Tensor], ...]  # for each layer and the input: mean |effect| and count, by lag
    group: int  # number of steps in one lag
    deletion_error: tuple[float, float]  # see `rlmin.inspection.recurrence.deletion_error`: in float64, in float32
    long: Norms | None  # in the longest episodes; None: the memory has no size, or there are none twice as long
    unwiped: Norms | None
    varied: Varied | None
    forgetting: tuple[Forgetting, ...]  # one for each of `explained`
    wipes: dict[int, Evaluation]
    memoryless: Evaluation | None  # wiped at every step

    @property
    def length(self) -> float:
        """Mean length of the episodes in the environment as it is."""
        return float(self.evaluation.lengths.mean())


def study(
    subject: Subject,
    *,
    episodes: int,
    vary: tuple[str, Sequence[Any]] | None,
    shown: int = 2,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Measure everything.

    Args:
        episodes: episodes of every evaluation.
        vary: an argument of the environment and its values; None: see `rlmin.inspection.delays.knob`.
        shown: episodes to explain.
        say: called with a line for each step of the work.

    Raises:
        ValueError: the policy does not fit the environment, or none of the values of `vary` does.
    """
    began = time.monotonic()

    def now(line: str) -> None:
        say(f"{time.monotonic() - began:5.1f} s  {line}")

    policy = subject.policy
    now(f"play {episodes} episodes")
    found = subject.evaluate(episodes)
    seconds = time.monotonic() - began
    rows, steps = affordable(policy.observation_space, min(LONGEST, int(found.lengths.max())), shown)
    kept, draws = _keep_play(subject, rows, steps)
    now("time scales")
    scales = time_scales(policy, kept)
    now(f"attribution: {shown} episodes of {steps} steps")
    explained = _explain(subject, kept, shown, draws=draws)
    budget = _Budget(episodes, seconds)
    results = _vary(subject, vary, now, budget)
    now("memory far beyond training")
    long, unwiped = _norms(subject, results, float(found.lengths.mean()))
    wipes, memoryless = _wipe(subject, found, now, budget)
    now("draw")
    group = explained[0].attribution.group
    return Study(
        subject=subject,
        evaluation=found,
        episodes=kept,
        scales=scales,
        explained=explained,
        lags=_lags(explained, group),
        group=group,
        deletion_error=_deletion_error(policy, explained[0].episode),
        long=long,
        unwiped=unwiped,
        varied=results,
        forgetting=tuple(measure_forgetting(policy, one.episode) for one in explained),
        wipes=wipes,
        memoryless=memoryless,
    )


class _Budget(NamedTuple):
    """The time that the evaluations of a section may take."""

    episodes: int  # number asked for, of one evaluation
    seconds: float  # time that as many took

    def share(self, evaluations: int) -> int:
        """Number of episodes for each of these evaluations: fewer in a slow environment."""
        afforded = int(self.episodes * BUDGET / max(evaluations * self.seconds, 1e-9))
        return max(min(self.episodes, 8), min(self.episodes, afforded))


def _vary(
    subject: Subject, vary: tuple[str, Sequence[Any]] | None, now: Callable[[str], None], budget: _Budget
) -> Varied | None:
    """Returns by the values of one argument of the environment; None if no argument was named and none is known."""
    change = vary or knob(subject)
    if change is None:
        return None
    name, values = change
    now(f"vary {name}: {', '.join(map(str, values))}")
    results = play_varied(subject, name, values, episodes=budget.share(len(values)))
    if vary is not None and not results.results:
        raise ValueError(f"vary: {name}={values[0]}: {results.failed[values[0]]}")
    for value, why in results.failed.items():
        now(f"not played: {results.name}={value}: {why}")
    return results


def _wipe(
    subject: Subject, found: Evaluation, now: Callable[[str], None], budget: _Budget
) -> tuple[dict[int, Evaluation], Evaluation | None]:
    """Returns with the memory wiped once at a step, by that step, and at every step; nothing without a memory."""
    if not has_memory(subject.policy):
        return {}, None
    at = _wipe_times(found)
    now(f"wipe the memory at {len(at)} steps")
    return wipe_returns(subject, at, episodes=budget.share(len(at) + 1))


@torch.no_grad()
def _deletion_error(policy: Policy, episode: Played) -> tuple[float, float]:
    """The deletion error over all layers, in float64 and in the precision in which the policy plays."""
    trace, exact = record_trace(policy, episode.leaves, episode.start), mixers(copy.deepcopy(policy).double())
    steps = torch.linspace(0, len(trace.x) - 1, min(16, len(trace.x))).long()
    start = trace.start[:, 0]
    layers = list(zip(recurrences(trace.mixers), recurrences(exact), trace.read, strict=False))
    double = [deletion_error(whole, read[:, 0], start, steps=steps) for _, whole, read in layers]
    single = [deletion_error(mixer, read[:, 0], start, steps=steps, exact=whole) for mixer, whole, read in layers]
    return max(double, default=0.0), max(single, default=0.0)


def affordable(space: gym.Space[Any], steps: int, shown: int) -> tuple[int, int]:
    """Rows and steps whose observations are at most KEPT bytes, as far as rows go: at least those to be shown."""
    leaves = leaf_spaces(space).values()
    step = sum(math.prod(leaf.shape or ()) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    rows = max(min(shown, ROWS), min(ROWS, KEPT // max(steps * step, 1)))
    return rows, max(1, min(steps, KEPT // max(rows * step, 1)))


def _keep_play(subject: Subject, rows: int, steps: int) -> tuple[Played, bool]:
    """The first episodes of these environments, and whether these draw pictures."""
    vector = subject.vector(rows)
    draws = "rgb_array" in (vector.env.metadata or {}).get("render_modes", ())
    try:
        return play_and_keep(vector, subject.actor(rows), steps=steps, seed=subject.seed, episodes=True), draws
    finally:
        vector.close()


def _explain(subject: Subject, kept: Played, shown: int, *, draws: bool) -> tuple[Explained, ...]:
    """Episodes with their actions explained, those that differ in their actions first."""
    columns = max(24, min(len(kept), VARIANTS // len(kept)))
    mean = mean_input(subject.policy, kept.leaves, kept.start)
    found = []
    for row in _select_different(kept, shown):
        episode = kept.first(row)
        episode = _replay_drawn(subject, episode, row) if draws else episode
        leaves = {name: leaf[:, 0] for name, leaf in episode.leaves.items()}
        mask = None if episode.action_mask is None else episode.action_mask[:, 0]
        inputs: dict[str, Any] = {"action": episode.action[:, 0], "action_mask": mask, "mean_input": mean}
        why = attribution(subject.policy, leaves, episode.start[:, 0], group=math.ceil(len(kept) / columns), **inputs)
        found.append(Explained(episode=episode, attribution=why, moment=_moment(why)))
    return tuple(found)


def _select_different(kept: Played, shown: int) -> list[int]:
    """Rows whose first episodes took different actions, then the first of the others."""
    rows, seen = list[int](), list[Tensor]()
    for row in range(kept.start.shape[1]):
        action = kept.first(row).action
        if not any(action.shape == other.shape and bool((action == other).all()) for other in seen):
            rows.append(row)
            seen.append(action)
    return sorted([*rows, *(row for row in range(kept.start.shape[1]) if row not in rows)][:shown])


def _replay_drawn(subject: Subject, episode: Played, row: int) -> Played:
    """The episode of that row, played again alone and with pictures; as recorded if the environment draws none."""
    try:
        vector = subject.vector(1, render_mode="rgb_array")
        try:
            again = play_and_keep(vector, subject.actor(1), steps=len(episode), seed=subject.seed + row, episodes=True)
        finally:
            vector.close()
    except (ValueError, TypeError, ImportError, gym.error.Error):
        return episode
    return again if again.frames else episode


def _moment(why: Attribution) -> tuple[int, int] | None:
    """The step, and the group of steps before it, whose input spoke most for what was done."""
    T, G = why.input_effect.shape
    past = torch.arange(G)[None] < (torch.arange(T) // why.group)[:, None]
    effect = torch.where(past, why.input_effect, -math.inf)
    best = float(effect.max())
    if best < 1e-9:
        return None
    return divmod(int(effect.argmax()), G)


def _lags(explained: tuple[Explained, ...], group: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Mean effects over the episodes: of each layer, then of the input."""
    effects = [[layer.effect for layer in one.attribution.layers] + [one.attribution.input_effect] for one in explained]
    curves = []
    for kind in zip(*effects, strict=True):
        longest = max(effect.shape[1] for effect in kind)
        total, count = torch.zeros(2, longest, dtype=torch.float64)
        for one, effect in zip(explained, kind, strict=True):
            sums, many = by_lag(effect, one.episode.start[:, 0].cpu(), group=group)
            total[: len(sums)] += sums
            count[: len(many)] += many
        curves.append((total / count.clamp(min=1), count))
    return tuple(curves)


def _norms(subject: Subject, results: Varied | None, length: float) -> tuple[Norms | None, Norms | None]:
    """Memory in the longest episodes there are, at least twice the usual length, and memory that is never wiped."""
    if not is_bounded_state(subject.policy):
        return None, None
    far = int(min(8 * max(subject.horizon, length), 2 * LONGEST))
    unwiped = norms(subject, steps=far, rows=ROWS, unwiped=True)
    value = None if results is None else results.longest
    if results is None or value is None or results.results[value].lengths.mean() < 2 * length:
        return None, unwiped
    return norms(subject, steps=2 * LONGEST, rows=ROWS, unwiped=False, **{results.name: value}), unwiped


def _wipe_times(found: Evaluation, most: int = 10) -> list[int]:
    """Steps of a typical episode, evenly spread, from 0 (before which there is nothing to wipe) to the last."""
    last = max(int(sorted(found.lengths)[len(found.lengths) // 2]) - 1, 0)
    return sorted({round(i * last / max(most - 1, 1)) for i in range(most)})
