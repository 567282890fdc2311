"""The plan for many GPUs: its formulas against numbers worked out by hand."""

import pytest

from rlmin.bench.count import Work
from rlmin.bench.plan import seconds_of, seconds_of_sum


def test_work_takes_the_time_of_its_launches_and_of_its_bytes() -> None:
    assert seconds_of(Work(launches=1000, bytes=3e9)) == pytest.approx(2e-3 + 1e-3)


def test_a_sum_takes_the_time_of_the_slowest_link_and_grows_with_the_machines() -> None:
    size = 900_000
    assert seconds_of_sum(1, size) == 0
    assert seconds_of_sum(8, size) == pytest.approx(2 * 7 / 8 * 3e-6 + 25e-6)
    assert seconds_of_sum(64, size) == pytest.approx(2 * 63 / 64 * 22.5e-6 + 25e-6 + 3 * 10e-6)
    assert seconds_of_sum(512, 0) == pytest.approx(25e-6 + 6 * 10e-6)
