"""Audit: every fault that was found from outside is put back into a copy of the package, and its test has to fail.

    python -m tests.audit               all of them (half an hour on one core)
    python -m tests.audit A5 C          those of one row, and of one part

A mend is a place in the package where a fault was mended: a text, and what stands there without the mend. The tests
that claim the row run first on the package as it is, where they have to pass, and then with one mend undone at a time.
A mend whose text is not found, or that no test misses, is an error.
"""

from .foreign import FOREIGN
from .keeping import KEEPING
from .mend import Mend
from .settings import SETTINGS
from .workers import WORKERS

MENDS: list[Mend] = [*KEEPING, *FOREIGN, *WORKERS, *SETTINGS]

ROWS = {
    "A1": "an agent that cannot be saved, noticed only when saving",
    "A2": "a run that can never be read",
    "A3": "copies that cannot learn",
    "A4": "a kill inside a save bricks a good run",
    "A5": "two processes, one folder",
    "A6": "a torn last line of the log stops a resume",
    "A7": "cleanup skipped on exceptions",
    "A8": "other remains",
    "B1": "a name in data imports code",
    "B2": "a predictable temporary name followed through a symlink",
    "B3": "bombs",
    "B4": "shape-only trust",
    "B5": "text into code",
    "C1": "a worker dies or hangs",
    "C2": "a VecEnv taken for a DummyVecEnv",
    "C3": "picture-like spaces silently flattened",
    "C4": "arguments silently ignored",
    "C5": "own errors of the environment",
    "D1": "no range check",
    "D2": "raw errors",
    "D3": "options that vanish",
    "D5": "the shell cannot find the user's own environment",
    "G1": "stale compiled kernels after an edit or an upgrade",
    "G2": "two threads on a busy machine",
    "G3": "a benchmark writes into what it is given",
}
"""Kinds of faults, by row."""
