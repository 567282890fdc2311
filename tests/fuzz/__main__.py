"""Fuzz for some minutes, and count; see the package."""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from .case import FAULTS, Verdict
from .targets import TARGETS, Case, Target

BATCH = 100
"""Cases that hypothesis draws from one seed."""


class Tally:
    """What became of the cases of one target."""

    def __init__(self, name: str) -> None:
        self.name, self.counts, self.seen = name, Counter[str](), set[tuple[str, str, str]]()

    def add(self, case: Case, verdict: Verdict) -> None:
        """Count; print the case where it is a fault of a kind not seen yet."""
        self.counts[f"{verdict.kind} {verdict.error}".strip() if verdict.kind == "refused" else verdict.kind] += 1
        where = verdict.words.rpartition(" -- ")[2][:80]
        if verdict.kind not in FAULTS or (verdict.kind, verdict.error, where) in self.seen:
            return
        self.seen.add((verdict.kind, verdict.error, where))
        print(f"FAULT {self.name}: {verdict.kind} {verdict.error}: {verdict.words}")
        print(f"  replay: python -m tests.fuzz --target {self.name} --replay '{_quoted(case)}'", flush=True)

    @property
    def faults(self) -> int:
        """Cases that went wrong."""
        return sum(self.counts[kind] for kind in FAULTS)

    def __str__(self) -> str:
        told = [f"{n} {kind}" for kind, n in sorted(self.counts.items()) if kind not in FAULTS]
        told += [f"{self.counts[kind]} {kind}" for kind in FAULTS]
        return f"{self.name}: {self.counts.total()} cases: {', '.join(told)}"


def _quoted(case: Case) -> str:
    """For a shell's single quotes."""
    return json.dumps(case).replace("'", "\\u0027")


def fuzz(name: str, target: Target, base: Path, *, seconds: float, first_seed: int) -> Tally:
    """Try cases until the time is over."""
    tally, end, number = Tally(name), time.monotonic() + seconds, first_seed

    def case_of(case: Case) -> None:
        if time.monotonic() < end:
            tally.add(case, target.try_case(case, base))

    quiet = settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    while time.monotonic() < end:
        seed(number)(quiet(given(target.cases)(case_of)))()
        number += 1
    return tally


def main() -> None:
    """Parse, fuzz, report; exit code 1 where a case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="Minutes in all, shared by the targets")
    parser.add_argument("--target", choices=TARGETS, help="Target; none: each in turn")
    parser.add_argument("--seed", type=int, default=0, help="Random seed")
    parser.add_argument("--replay", help="Case to try, as it was printed")
    given_ = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = [given_.target] if given_.target else list(TARGETS)
    faults = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="rlmin-fuzz-base-") as base:
            TARGETS[name].ready(Path(base))
            if given_.replay:
                verdict = TARGETS[name].try_case(json.loads(given_.replay), Path(base))
                print(verdict)
                faults += verdict.kind in FAULTS
                continue
            seconds = 60 * given_.minutes / len(names)
            tally = fuzz(name, TARGETS[name], Path(base), seconds=seconds, first_seed=given_.seed)
            faults += tally.faults
            print(tally, flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
