"""The audit's table: every row has mends, each stands where the table says, and names a test that there is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from audit import MENDS, ROWS
from audit.mend import Mend

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = ROOT / "rlmin"


def test_every_row_has_a_mend() -> None:
    assert {mend.row for mend in MENDS} == set(ROWS)


@pytest.mark.parametrize("file", sorted({mend.file for mend in MENDS}))
def test_a_mend_can_be_undone_and_leaves_code(file: str, tmp_path: Path) -> None:
    copy = tmp_path / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(PACKAGE / file, copy)
    before = copy.read_text()
    for mend in MENDS:
        if mend.file == file:
            with mend.undo(tmp_path):
                assert copy.read_text() != before
                compile(copy.read_text(), file, "exec")
            assert copy.read_text() == before


def test_a_mend_names_a_test() -> None:
    for mend in MENDS:
        file, _, test = mend.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (TESTS / file).read_text(), mend.test


def test_a_mend_that_has_moved_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1  # as it is\nx = 1\ny = 2  # so far\n")
    for text in ("x = 1\n", "z = 1\n"):
        with (
            pytest.raises(ValueError, match=r"A1 it: a\.py has its text (2|0) times"),
            Mend("A1", "it", "a.py", text, "", "").undo(tmp_path),
        ):
            pass
    with Mend("A1", "it", "a.py", "y = 2\n", "y = 3\n", "").undo(tmp_path):
        assert (tmp_path / "a.py").read_text().endswith("y = 3\n")


PROGRAM = """
import sys
from pathlib import Path
from tests.audit import MENDS
from tests.audit.__main__ import audit, make_copy

found = next(mend for mend in MENDS if mend.row == "A6")
unmissed = found._replace(file="waiting.py", text="return True\\n", instead="return 1\\n")
print(*(kind for _, kind, _ in audit([found, unmissed], make_copy(Path(sys.argv[1])))))
"""
"""A program of its own: a process that has loaded the package already would not load the copy's."""


@pytest.mark.slow
def test_the_audit_finds_a_mend_undone_and_one_that_no_test_misses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["found", "MISSED"], done.stdout + done.stderr
