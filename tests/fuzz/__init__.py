"""Fuzzing: what is given to rlmin is accepted and right, or refused by one clear error, in bounded time and memory.

    python -m tests.fuzz --minutes 5 [--target runs] [--seed 1]
    python -m tests.fuzz --cases 100000
    python -m tests.fuzz --target runs --replay '{"base": "ppo", ...}'

A case is plain JSON: printed where it failed, it can be tried again. Cases of whole files, policies and commands are
drawn by hypothesis, and each is tried in a process of its own (`targets`). Those of one parser or check take less than
a millisecond and are drawn from numbers; a process tries thousands of them (`quick`, `batch`). `tests/test_fuzz.py`
tries a few, always the same, with every run of the tests.
"""

from .batch import many
from .case import FAULTS, Verdict, tried
from .quick import QUICK
from .targets import TARGETS, Target

__all__ = ["FAULTS", "QUICK", "TARGETS", "Target", "Verdict", "many", "tried"]
