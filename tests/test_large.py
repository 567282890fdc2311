"""What needs a large package is skipped where it is missing, and the end of the run says how to get it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = {
    "test_marked.py": """
        import pytest

        @pytest.mark.needs("no_such_package")
        def test_skipped():
            raise AssertionError

        @pytest.mark.needs("torch")
        def test_run():
            pass
    """,
    "test_whole.py": """
        from large import need

        need("no_such_package")
        raise AssertionError
    """,
}


def test_what_is_missing_is_skipped_counted_and_named(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text("\n".join(line[8:] for line in text.splitlines()))
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest", str(tmp_path)]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "2 tests or files: no_such_package 2" in done.stdout
    assert 'pip install -c constraints.txt -e ".[all]" && pytest -m "needs and not slow"' in done.stdout


def test_the_second_step_of_ci_is_what_the_summary_says() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines.index('pip install -c constraints.txt -e ".[all]"') + 1 == lines.index(
        'pytest -n auto -m "needs and not slow"'
    )


def test_the_extra_all_has_every_other_extra_but_ray() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r"rlmin\[(.*)\]", extras["all"][0])
    small = re.search(r"rlmin\[(.*)\]", extras["test"][0])
    assert named and small
    assert {*named[1].split(","), *small[1].split(",")} == set(extras) - {"all", "ray", "rllib"}
