"""Fuzz for some minutes, and count; see the package."""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from .batch import many, verdict_of
from .case import FAULTS, Verdict
from .quick import QUICK
from .targets import TARGETS, Case

BATCH = 100
"""Cases that hypothesis draws from one seed."""
CHILD = 2000
"""Cases that one process tries of a quick target: what leaks does not add up."""


class Tally:
    """What became of the cases of one target."""

    def __init__(self, name: str) -> None:
        self.name, self.counts, self.seen = name, Counter[str](), set[tuple[str, str, str]]()

    def add(self, case: Case | None, verdict: Verdict, count: int = 1) -> None:
        """Count; print the case where it is a fault of a kind not seen yet."""
        self.counts[verdict.kind] += count
        where = verdict.words.rpartition(" -- ")[2][:80]
        if case is None or (verdict.kind, verdict.error, where) in self.seen or verdict.kind not in FAULTS:
            return
        self.seen.add((verdict.kind, verdict.error, where))
        print(f"FAULT {self.name}: {verdict.kind} {verdict.error}: {verdict.words}")
        print(f"  replay: python -m tests.fuzz --target {self.name} --replay '{_quoted(case)}'", flush=True)

    @property
    def faults(self) -> int:
        """Cases that went wrong."""
        return sum(self.counts[kind] for kind in FAULTS)

    def __str__(self) -> str:
        told = [f"{self.counts[kind]} {kind}" for kind in ("accepted", "refused", *FAULTS)]
        return f"{self.name}: {self.counts.total()} cases: {', '.join(told)}"


class Until(NamedTuple):
    """When it is enough: after so many cases, or at a time."""

    cases: int | None
    end: float

    def reached(self, tally: Tally) -> bool:
        """Whether it is."""
        return time.monotonic() >= self.end if self.cases is None else tally.counts.total() >= self.cases


def _quoted(case: Case) -> str:
    """For a shell's single quotes."""
    return json.dumps(case).replace("'", "\\u0027")


def fuzz(name: str, base: Path, *, until: Until, first_seed: int) -> Tally:
    """Try cases until it is enough."""
    tally = Tally(name)
    if name in QUICK:
        _fuzz_quick(tally, until, first_seed)
        return tally
    target, number = TARGETS[name], first_seed

    def case_of(case: Case) -> None:
        if not until.reached(tally):
            tally.add(case, target.try_case(case, base))

    quiet = settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    while not until.reached(tally):
        seed(number)(quiet(given(target.cases)(case_of)))()
        number += 1
    return tally


def _fuzz_quick(tally: Tally, until: Until, first_seed: int) -> None:
    number = first_seed * 10**9
    while not until.reached(tally):
        count = min(CHILD, until.cases - tally.counts.total()) if until.cases is not None else CHILD
        for case, verdict, n in many(tally.name, number, count):
            tally.add(case, verdict, n)
        number += count


def shares(names: Sequence[str], cases: int) -> dict[str, int]:
    """So many cases, shared among targets by their weights; each has one at least."""
    weights = {name: QUICK[name].weight if name in QUICK else TARGETS[name].weight for name in names}
    return {name: max(1, round(cases * weight / sum(weights.values()))) for name, weight in weights.items()}


def main() -> None:
    """Parse, fuzz, report; exit code 1 where a case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="Minutes in all, shared by the targets")
    parser.add_argument("--cases", type=int, help="Cases in all instead, shared by the targets: the same everywhere")
    parser.add_argument("--target", choices=[*QUICK, *TARGETS], help="Target; none: each in turn")
    parser.add_argument("--seed", type=int, default=0, help="Random seed")
    parser.add_argument("--replay", help="Case to try, as it was printed")
    given_ = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = [given_.target] if given_.target else [*QUICK, *TARGETS]
    counts = shares(names, given_.cases) if given_.cases else {}
    faults, cases = 0, 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="rlmin-fuzz-base-") as base:
            if name in TARGETS:
                TARGETS[name].ready(Path(base))
            if given_.replay:
                faults += _replay(name, json.loads(given_.replay), Path(base))
                continue
            end = time.monotonic() + 60 * given_.minutes / len(names)
            tally = fuzz(name, Path(base), until=Until(counts.get(name), end), first_seed=given_.seed)
            faults, cases = faults + tally.faults, cases + tally.counts.total()
            print(tally, flush=True)
    print(f"{cases} cases, {faults} faults")
    sys.exit(1 if faults else 0)


def _replay(name: str, case: Case, base: Path) -> bool:
    """Whether the case goes wrong; its verdict is printed."""
    verdict = verdict_of(name, case) if name in QUICK else TARGETS[name].try_case(case, base)
    print(verdict)
    return verdict.kind in FAULTS


if __name__ == "__main__":
    main()
