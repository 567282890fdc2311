"""Torch's threads sleep while they wait for each other, unless the user chose otherwise."""

import os
import subprocess
import sys

import pytest

from rlmin.waiting import CHOICES, POLICY, sleep_while_waiting


def in_a_process(code: str, **variables: str) -> str:
    environment = {name: x for name, x in os.environ.items() if name not in CHOICES} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


SHOW = f"import os; print(os.environ.get({POLICY!r}))"


def test_it_is_chosen_before_torch_is_loaded() -> None:
    assert in_a_process(f"import rlmin; {SHOW}") == "PASSIVE"
    seen = "import sys, torch, rlmin.waiting as w; assert 'torch' in sys.modules"
    assert in_a_process(f"{seen}; print(w.sleep_while_waiting({{}}))") == "False", "the arm that comes too late"


@pytest.mark.parametrize("name", CHOICES)
def test_the_users_own_choice_stays(name: str) -> None:
    wanted = "0" if name == POLICY else "None"
    assert in_a_process(f"import rlmin; {SHOW}", **{name: "0"}) == wanted


def test_where_torch_is_loaded_already_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    assert not sleep_while_waiting(environment) and not environment
    monkeypatch.delitem(sys.modules, "torch")
    assert sleep_while_waiting(environment) and environment == {POLICY: "PASSIVE"}
