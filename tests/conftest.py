"""Every test runs on one thread, every scan kernel on every machine, and what needs a large package where it is there.

One thread: the tensors are tiny, and threads that wait for each other only cost time. The kernels of the GPU run on it
where there is one, and else in Triton's interpreter. That is a setting of the whole process which Triton reads when it
is imported, so it is made here, before any test module can import it.
"""

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from large import MISSING

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from rlmin.agents import AGENTS
from rlmin.cli import main
from rlmin.encoders import CELLS
from rlmin.scan import KERNELS

START = multiprocessing.get_start_method(allow_none=True)
VARIANTS = [name for name in KERNELS if name != "gpu"] + ["gpu sequential", "gpu tile"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `needs` where one of the packages is missing."""
    for mark in item.iter_markers("needs"):
        for package in mark.args:
            if find_spec(package) is None:
                pytest.skip(f"{MISSING}{package}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests were skipped for want of which package, and how to run them."""
    reasons = [str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", ())]
    missing = Counter(reason.partition(MISSING)[2] for reason in reasons if MISSING in reason)
    if not missing:
        return
    counted = ", ".join(f"{package} {number}" for package, number in sorted(missing.items()))
    terminalreporter.section("skipped, as a large package is not installed")
    terminalreporter.line(f"{missing.total()} tests or files: {counted}")
    terminalreporter.line('to run them: pip install -c constraints.txt -e ".[all]" && pytest -m "needs and not slow"')


@pytest.fixture(params=["portable", "gpu"])
def kernel_without_numba(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused operations of a GPU: by torch, and by Triton."""
    if request.param == "gpu":
        pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    monkeypatch.setenv("RLMIN_KERNEL", request.param)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Before each test, as a run with `threads` set changes it for the whole process."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def usual_workers() -> None:
    """Before each test, as torchrl makes every later worker of the process import everything anew, seconds each."""
    if multiprocessing.get_start_method(allow_none=True) != START:
        multiprocessing.set_start_method(START, force=True)


@pytest.fixture(params=VARIANTS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scan kernel, forced; with one of the GPU, the default device is that GPU where there is one."""
    name, _, variant = str(request.param).partition(" ")
    monkeypatch.setenv("RLMIN_KERNEL", name)
    if not variant:
        yield request.param
        return
    gpu = pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    small = {"sequential": {"STEPS": 2, "BLOCK": 16}, "tile": {"STEPS": 4, "BLOCK": 16}}[variant]

    def plan(kernel: str, T: int, *size: int) -> tuple[object, dict[str, object]]:
        module, options = getattr(gpu, variant)(kernel, *size)
        return module, options | small if gpu.INTERPRETED else options  # the interpreter is slow

    monkeypatch.setattr(gpu, "plan", plan)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"), np.errstate(all="ignore"):
        yield request.param


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], str], None]:
    """A check that the command line answers arguments with exit code 2 and one line that holds a message."""

    def check(arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        line = capsys.readouterr().err
        assert exit.value.code == 2 and message in line and line.count("\n") == 1, line

    return check


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a reader of the documentation works: an empty folder, from which nothing reaches a network or stays."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "path", list(sys.path))
    registered, cells, agents = set(gym.registry), dict(CELLS), dict(AGENTS)
    yield tmp_path
    own = {"__main__", "builtins"}  # what a page itself defines; a package that it imported stays, with its ids
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            own.add(name)
            del sys.modules[name]
    CELLS.clear()
    CELLS.update(cells)
    AGENTS.clear()
    AGENTS.update(agents)
    for id in set(gym.registry) - registered:
        entry = gym.registry[id].entry_point
        if (entry.split(":")[0] if isinstance(entry, str) else entry.__module__) in own:
            del gym.registry[id]
