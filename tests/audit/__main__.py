"""Undo the mends one by one, and see their tests fail; see the package."""

import argparse
import contextlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from . import MENDS, ROWS
from .mend import Mend

ROOT = Path(__file__).parent.parent.parent
PARTS = ("rlmin", "tests", "pyproject.toml", "README.md", "docs", "constraints.txt")
SLOW_TO_LOAD = ("torch.utils.tensorboard", "stable_baselines3", "tensordict", "numba", "scipy.stats", "tyro")
"""What most tests import, loaded once; the package itself is loaded anew for each."""
SECONDS = 300.0
"""After which a test that hangs has missed the mend."""
MEMORY = 8 * 2**30
"""Bytes that a test may ask for; without a mend it may ask for terabytes."""


class Outcome(NamedTuple):
    """What became of one run of pytest."""

    code: int | None  # None: it was ended, as it hung
    lines: list[str]  # what it printed

    @property
    def last(self) -> str:
        """The last line of its summary."""
        if self.code is None:
            return f"no end within {SECONDS:g} s"
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return "".join(self.lines[-1:]).strip("= ")

    @property
    def passes(self) -> bool:
        """Whether tests ran, and passed."""
        return self.code == pytest.ExitCode.OK and " passed" in self.last

    @property
    def fails(self) -> bool:
        """Whether a test failed, hung, or ended its process by a signal; with another exit code none has run."""
        if self.code is None or self.code < 0:
            return True
        return self.code == pytest.ExitCode.TESTS_FAILED or " failed" in self.last


def run_tests(copy: Path, tests: Sequence[str], *options: str, seconds: float = SECONDS) -> Outcome:
    """Run tests of the copy in a child with a process group of its own."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            _run_pytest(copy, [*options, *(f"tests/{test}" for test in tests)], out.fileno())
        code = _wait(child, seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the test left
        out.seek(0)
        lines = [line for line in out.read().splitlines() if line.strip()]
    return Outcome(code, lines)


def _run_pytest(copy: Path, arguments: list[str], out: int) -> None:
    """Never returns."""
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(copy / "kernels")}
        sys.path[:] = [str(copy), *(place for place in sys.path if Path(place).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        os._exit(pytest.main(["-q", "-m", "", "-p", "no:cacheprovider", *arguments]))
    finally:
        os._exit(99)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None where it hangs, and is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def audit(mends: Sequence[Mend], copy: Path) -> Iterator[tuple[Mend, str, str]]:
    """Each mend, what became of it ("found", "MISSED", "skipped" or "ERROR"), and the last line of its test."""
    tests = sorted({mend.test for mend in mends})
    whole = run_tests(copy, tests, "-rpfE", "--tb=no", seconds=SECONDS * len(tests))
    ran = [line.split(" - ")[0].partition(" ")[::2] for line in whole.lines]
    for mend in mends:
        kinds = {kind for kind, id in ran if id == f"tests/{mend.test}" or id.startswith(f"tests/{mend.test}[")}
        if kinds != {"PASSED"}:
            yield mend, "ERROR" if kinds else "skipped", f"not undone: {', '.join(sorted(kinds)) or whole.last}"
            continue
        try:
            with mend.undo(copy / "rlmin"):
                found = run_tests(copy, [mend.test], "-x")
        except ValueError as error:
            yield mend, "ERROR", str(error)
            continue
        yield mend, "found" if found.fails else "MISSED" if found.passes else "ERROR", found.last


def make_copy(folder: Path) -> Path:
    """The package and its tests in a folder."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def main() -> None:
    """Audit and report; exit code 1 where a mend is missed by its test."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("rows", nargs="*", help="Rows or their first letters; none: all")
    wanted = tuple(parser.parse_args().rows) or ("",)
    counts, row = dict[str, int](), ""
    for name in SLOW_TO_LOAD:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="rlmin-audit-") as folder:
        copy = make_copy(Path(folder))
        for mend, kind, last in audit([one for one in MENDS if one.row.startswith(wanted)], copy):
            if mend.row != row:
                row = mend.row
                print(f"{row}: {ROWS[row]}")
            counts[kind] = counts.get(kind, 0) + 1
            print(f"  {kind:7} {mend.about}\n          {mend.test}: {last}", flush=True)
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()))
    sys.exit(bool(counts.get("MISSED", 0) + counts.get("ERROR", 0)))


if __name__ == "__main__":
    main()
