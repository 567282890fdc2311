"""Delays: success in environments that are longer or harder than in training."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs import registration

from rlmin.checks import old_names
from rlmin.evaluation.evaluate import Evaluation
from rlmin.inspection.subject import Subject

KNOBS = ("delay", "length", "decks")
"""Arguments of native environments that put more steps between cue and question; the first that exists is used."""
FACTORS = (0.5, 1, 2, 4, 8, 16)
"""Multiples of the value in training that are played by default."""


@dataclass(frozen=True, kw_only=True)
class Varied:
    """One argument of the environment, and the results at its values."""

    name: str
    trained: Any  # the value in training; None: unknown
    results: dict[Any, Evaluation]
    failed: dict[Any, str]  # values that do not fit the policy or the environment, with the reason

    @property
    def longest(self) -> Any:
        """The value with the longest episodes; None if none was played."""
        return max(self.results, key=lambda value: float(self.results[value].lengths.mean()), default=None)


def knob(subject: Subject) -> tuple[str, list[int]] | None:
    """The default to vary: an argument of a native environment and its values; None if none is known."""
    for name in KNOBS:
        value = base(subject).get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return name, sorted({max(1, round(value * factor)) for factor in FACTORS})
    return None


def options_of(id: str) -> dict[str, Any]:
    """Arguments of a native environment with their defaults; empty for other environments."""
    spec = gym.registry.get(id)
    if spec is None or spec.vector_entry_point is None:
        return {}
    entry = spec.vector_entry_point
    creator = registration.load_env_creator(entry) if isinstance(entry, str) else entry
    defaults = {name: one.default for name, one in inspect.signature(creator).parameters.items()}
    return {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty} | spec.kwargs


def play_varied(subject: Subject, name: str, values: Sequence[Any], *, episodes: int) -> Varied:
    """Play whole episodes at each value of one argument of the environment.

    Values that the environment refuses, or that change its spaces, are noted and left out.
    """
    results, failed = dict[Any, Evaluation](), dict[Any, str]()
    for value in values:
        try:
            results[value] = subject.evaluate(episodes, **{name: value})
        except ValueError as error:
            failed[value] = " ".join(str(error).split())
    known = None if subject.trained_in is None else base(subject).get(name)
    return Varied(name=name, trained=known, results=results, failed=failed)


def base(subject: Subject) -> dict[str, Any]:
    """Arguments of the training environment, defaults included; the present ones if it is a different environment."""
    own = subject.arena.kwargs if subject.trained_in is None else subject.trained_in
    return {**options_of(subject.arena.id), **own}


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, varied="play_varied")
