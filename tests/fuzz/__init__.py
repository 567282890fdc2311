"""Fuzzing: what is given to rlmin is accepted and right, or refused by one clear error, in bounded time and memory.

    python -m tests.fuzz --minutes 5 [--target runs] [--seed 1]
    python -m tests.fuzz --target runs --replay '{"base": "ppo", ...}'

A case is plain JSON: printed where it failed, it can be tried again. hypothesis draws the cases; a process of its own
tries each of them. `tests/test_fuzz.py` tries a few, always the same, with every run of the tests.
"""

from .case import FAULTS, Verdict, tried
from .targets import TARGETS, Target

__all__ = ["FAULTS", "TARGETS", "Target", "Verdict", "tried"]
