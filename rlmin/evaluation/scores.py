"""Scores: returns on a scale where a random policy has 0 and an expert 100, and the source of the two."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tensordict is slow to import
    from rlmin.data import Reference

NO_REFERENCE = (
    "no reference scores are known for this environment, so returns are in env units only; give two returns "
    "(--reference RANDOM EXPERT), or measure them (--measure-reference 100)"
)


def score(returns: Any, reference: "Reference") -> Any:
    """Returns as scores: a random policy has 0, an expert 100.

        100 * (returns - random) / (expert - random)

    Source: D4RL (Fu et al. 2020, arXiv:2004.07219).
    """
    return 100 * (returns - reference.random) / width(reference)


def unscore(scores: Any, reference: "Reference") -> Any:
    """The inverse of `score`: returns in env units."""
    return reference.random + scores * width(reference) / 100


def width(reference: "Reference") -> float:
    """Env units between scores 0 and 100; a ValueError if there are none."""
    found = reference.expert - reference.random
    if not (math.isfinite(found) and found != 0):
        raise ValueError(f"{describe_reference(reference)}: these two are equal, so there is no scale between them")
    return found


def describe_reference(reference: "Reference") -> str:
    """The two numbers and their source."""
    return f"random = {reference.random:g}, expert = {reference.expert:g} ({reference.source})"
