"""A few cases of every target of the fuzzer, always the same; `python -m tests.fuzz` tries many more."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import FAULTS, QUICK, TARGETS, Verdict, many, tried
from fuzz.case import DifferenceError
from fuzz.quick import Quick
from hypothesis import HealthCheck, Phase, given, settings

FEW = {"policies": 12, "runs": 15, "d4rl": 20, "minari": 12, "presets": 9, "commands": 8}
"""Cases of each, about three seconds."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory cannot be limited here")


@pytest.mark.parametrize("name", TARGETS)
def test_every_case_is_accepted_and_right_or_refused_by_one_error(name: str, tmp_path: Path) -> None:
    target, kinds = TARGETS[name], set[str]()
    target.ready(tmp_path)

    @settings(
        max_examples=FEW[name],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def try_case(case: dict[str, object]) -> None:
        verdict = target.try_case(case, tmp_path)
        kinds.add(verdict.kind)
        assert verdict.kind not in FAULTS, f"{verdict}\n--target {name} --replay '{json.dumps(case)}'"

    try_case()
    assert "refused" in kinds, "no case was odd"


@pytest.mark.parametrize("name", QUICK)
def test_every_quick_case_is_accepted_and_right_or_refused_by_one_error(name: str) -> None:
    cases = min(120, QUICK[name].weight)
    found = list(many(name, 0, cases))
    wrong = [(json.dumps(case), verdict) for case, verdict, _ in found if verdict.kind in FAULTS]
    assert not wrong, f"{wrong[0][1]}\n--target {name} --replay '{wrong[0][0]}'"
    counts = {verdict.kind: n for case, verdict, n in found if case is None}
    assert sum(counts.values()) == cases and counts["refused"] and (counts["accepted"] or name == "weights")


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.usual is not None])
def test_the_usual_case_is_accepted(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.ready(tmp_path)
    assert target.usual is not None and target.try_case(target.usual, tmp_path) == Verdict("accepted")


def fill_memory() -> None:
    kept = []
    while True:
        kept.append(bytearray(2**26))


def differ() -> None:
    raise DifferenceError("2 and not 3")


def stumble() -> None:
    raise ValueError("not raised by the library")


WRONG: dict[str, Callable[[], object]] = {
    "hang": lambda: time.sleep(60),
    "memory": fill_memory,
    "difference": differ,
    "accident": stumble,
    "traceback": lambda: {}["no such key"],  # type: ignore[index]
    "killed": lambda: os.kill(os.getpid(), 9),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_goes_wrong_is_told_apart(kind: str) -> None:
    act = WRONG[kind]
    assert tried(act, seconds=3 if kind == "hang" else 30, memory=2**28).kind == kind


def odd(case: dict[str, object]) -> None:
    """Of ten cases three go wrong, each in its way."""
    x = case["x"]
    if x == 3:
        time.sleep(60)
    elif x == 5:
        os.kill(os.getpid(), 9)
    elif x == 7:
        raise DifferenceError("2 and not 3")


def test_a_process_that_hangs_or_dies_is_replaced_and_no_case_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUICK, "odd", Quick(lambda random: {"x": random.randrange(10)}, odd, 1))
    monkeypatch.setattr("fuzz.batch.case_of", lambda name, number: {"x": number})
    found = list(many("odd", 0, 10, seconds=1))
    assert [(case, verdict.kind) for case, verdict, _ in found if case is not None] == [
        ({"x": 3}, "hang"),
        ({"x": 5}, "killed"),
        ({"x": 7}, "difference"),
    ]
    assert sum(n for _, verdict, n in found if verdict.kind == "accepted") == 7


@pytest.mark.slow
def test_ten_thousand_cases_find_nothing() -> None:
    """The same cases everywhere, so that a slow machine finds no less."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "10000", "--seed", "7"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
