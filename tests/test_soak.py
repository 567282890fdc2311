"""The soak: a process that does not grow passes, one that does is found out."""

import gc
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from soak import BOUNDS, growths, soak

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing can be counted here")


def flat(**more: float) -> dict[str, float]:
    return {"memory": 500.0, "descriptors": 20.0, "threads": 3.0} | more


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """What other tests left is not looked through again at every count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def kept() -> Iterator[list[Any]]:
    """What leaks."""
    held: list[Any] = []
    yield held
    for thing in held:
        if isinstance(thing, int):
            os.close(thing)
        elif isinstance(thing, threading.Event):
            thing.set()


def mapped() -> mmap.mmap:
    """A mebibyte of pages of its own: what malloc gives may be memory that an earlier test gave back."""
    pages = mmap.mmap(-1, 2**20)
    pages.write(b"x" * 2**20)
    return pages


def sleeper() -> threading.Event:
    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    return over


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("memory", mapped),
        ("descriptors", lambda: os.open(os.devnull, os.O_RDONLY)),
        ("threads", sleeper),
    ],
)
def test_what_leaks_is_found(name: str, leak: Any, kept: list[Any]) -> None:
    cycles, found = soak({"leak": lambda: kept.append(leak())}, seconds=0, least=30)
    assert cycles == 30 == len(kept)
    grown = {growth.name for growth in found if growth.too_fast}
    assert name in grown and grown <= {name, "memory"}  # a thread has memory of its own


def test_what_does_not_grow_passes() -> None:
    assert not any(growth.too_fast for growth in soak({"nothing": lambda: None}, seconds=0, least=30)[1])


def test_a_warm_up_an_outlier_and_noise_are_no_growth() -> None:
    times = [60.0 * i for i in range(30)]
    samples = [flat(memory=400 + 10.0 * i) for i in range(10)] + [flat(memory=500 + i % 2) for i in range(20)]
    samples[20] = flat(memory=900, descriptors=90)
    assert not any(growth.too_fast for growth in growths(times, samples))


def test_a_mebibyte_an_hour_is_found_in_half_an_hour_and_less_is_not() -> None:
    times = [16.0 * i for i in range(113)]
    pages = [round((i * 7919) % 5) * 4 / 1024 for i in range(113)]  # resident memory goes up and down by pages
    for per_hour, too_fast in ((1.2, True), (0.3, False), (0.0, False), (-5.0, False)):
        samples = [flat(memory=640 + per_hour * t / 3600 + page) for t, page in zip(times, pages, strict=True)]
        found = {one.name: one for one in growths(times, samples)}["memory"]
        assert found.too_fast is too_fast and found.per_hour == pytest.approx(per_hour, abs=0.1)


def test_slopes_are_an_hour_s() -> None:
    times = [60.0 * i for i in range(60)]
    found = {one.name: one for one in growths(times, [flat(memory=500 + i) for i in range(60)])}
    assert found["memory"].per_hour == pytest.approx(60) and found["memory"].too_fast
    assert found["threads"].per_hour == 0 and set(found) == set(BOUNDS)


@pytest.mark.slow
def test_agents_of_every_kind_do_not_grow_for_a_minute() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "1"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cycles of native, workers, stable-baselines3, decision" in done.stdout
