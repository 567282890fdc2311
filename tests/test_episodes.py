"""Episode statistics: sums per environment over real rows, the last finished episodes, and an exact resume."""

from typing import Any

import pytest
import torch

from rlmin.types import Step
from rlmin.vector.episodes import Episode, EpisodeStatistics


def record(
    reward: list[float],
    *,
    terminated: list[int] | None = None,
    truncated: list[int] | None = None,
    filler: list[int] | None = None,
    success: list[int] | None = None,
) -> Step:
    none = [0] * len(reward)
    flags = [torch.tensor(row or none, dtype=torch.bool) for row in (terminated, truncated, filler)]
    return Step(
        observation={"observation": torch.zeros(len(reward), 1)},
        reward=torch.tensor(reward),
        terminated=flags[0],
        truncated=flags[1],
        start=flags[2],
        filler=flags[2],
        final_observation=None,
        action_mask=None,
        success=None if success is None else torch.tensor(success, dtype=torch.bool),
    )


def test_returns_and_lengths_by_hand() -> None:
    statistics = EpisodeStatistics(3)
    assert statistics.mean_return is None and statistics.success_rate is None
    assert statistics.update(record([1, 2, 3])) == []
    finished = statistics.update(record([1, 2, 3], terminated=[1, 0, 0], truncated=[0, 0, 1], success=[1, 0, 0]))
    assert finished == [Episode(return_=2, length=2, success=True), Episode(return_=6, length=2, success=False)]
    assert statistics.update(record([5, 5, 5], terminated=[0, 1, 0], success=[0, 1, 0])) == [
        Episode(return_=9, length=3, success=True)
    ]
    assert (statistics.episodes, statistics.steps) == (3, 9)
    assert statistics.mean_return == pytest.approx(17 / 3)
    assert statistics.mean_length == pytest.approx(7 / 3)
    assert statistics.success_rate == pytest.approx(2 / 3)


@pytest.mark.parametrize("marked", [True, False])
def test_filler_rows_count_only_if_they_are_not_marked(marked: bool) -> None:
    statistics = EpisodeStatistics(2)
    statistics.update(record([1, 1], terminated=[1, 0]))
    statistics.update(record([0, 1], filler=[int(marked), 0]))
    finished = statistics.update(record([4, 1], terminated=[1, 0]))
    assert (finished == [Episode(return_=4, length=1, success=None)]) is marked
    assert statistics.steps == 6 - int(marked)


def test_a_reset_drops_what_was_running() -> None:
    statistics = EpisodeStatistics(2)
    statistics.update(record([3, 3]))
    statistics.update(record([0, 0], filler=[1, 1]))
    assert statistics.update(record([1, 1], truncated=[1, 0])) == [Episode(return_=1, length=1, success=None)]


def test_the_window_forgets_and_the_count_does_not() -> None:
    statistics = EpisodeStatistics(1, window=2)
    for value in (10.0, 20.0, 40.0):
        statistics.update(record([value], terminated=[1]))
    assert statistics.mean_return == 30 and statistics.episodes == 3
    assert statistics.success_rate is None


def test_many_small_rewards_do_not_drift() -> None:
    statistics, single = EpisodeStatistics(1), torch.zeros(1)
    step = record([0.1])
    for _ in range(20_000):
        statistics.update(step)
        single = single + step.reward
    finished = statistics.update(record([0.1], terminated=[1]))
    assert finished[0].return_ == pytest.approx(20_001 * float(torch.tensor(0.1)), rel=1e-12)
    assert float(single) != pytest.approx(20_000 * 0.1, rel=1e-6), "float32 sums do drift"


def test_a_saved_state_continues_exactly_and_a_fresh_one_does_not() -> None:
    torch.manual_seed(0)
    steps = [
        record(torch.randn(4).tolist(), terminated=(torch.rand(4) < 0.2).long().tolist(), success=[1, 0, 0, 1])
        for _ in range(60)
    ]
    whole, first, fresh = (EpisodeStatistics(4, window=7) for _ in range(3))
    for step in steps[:31]:
        whole.update(step)
        first.update(step)
    resumed = EpisodeStatistics(4, window=7)
    resumed.load_state_dict(first.state_dict())
    told = [(whole.update(step), resumed.update(step), fresh.update(step)) for step in steps[31:]]
    assert all(a == b for a, b, _ in told) and any(a != c for a, _, c in told)
    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    assert (whole.mean_return, whole.success_rate, whole.steps) == (
        resumed.mean_return,
        resumed.success_rate,
        resumed.steps,
    )


def test_another_number_of_environments_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[B=2\], got \[3\]"):
        EpisodeStatistics(2).update(record([1, 1, 1]))
    with pytest.raises(ValueError, match=r"expected \[B=2\], got \[3\]"):
        EpisodeStatistics(2).load_state_dict(EpisodeStatistics(3).state_dict())


def test_records_that_are_settled_later_give_the_same_episodes() -> None:
    records = [
        record([1, 2, 3], terminated=[1, 0, 0], success=[1, 0, 0]),
        record([4, 5, 6], filler=[1, 0, 0]),
        record([7, 8, 9], truncated=[0, 1, 0], terminated=[1, 0, 0]),
    ]
    at_once, later = EpisodeStatistics(3), EpisodeStatistics(3)
    episodes = [episode for step in records for episode in at_once.update(step)]
    for step in records:
        later.add(step)
    later.settle()
    later.settle()
    assert list(later.finished) == episodes and len(episodes) == 3
    for step in records:
        later.add(step)
        at_once.update(step)
    assert later.mean_return == at_once.mean_return and later.episodes == 6, "reading a mean settles"
    same = zip(later.state_dict().values(), at_once.state_dict().values(), strict=True)
    assert all(torch.equal(x, y) for x, y in same)


def test_of_many_episodes_all_are_counted_and_the_last_ones_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []

    def note(**facts: Any) -> Episode:
        made.append(facts["return_"])
        return Episode(**facts)

    monkeypatch.setattr("rlmin.vector.episodes.Episode", note)
    statistics = EpisodeStatistics(3, window=4)
    for t in range(50):
        statistics.add(record([3 * t, 3 * t + 1, 3 * t + 2], terminated=[1, 1, t % 2]))
    statistics.settle()
    assert statistics.episodes == 125 and made == [145, 147, 148, 146 + 149]
    assert statistics.mean_return == sum(made) / 4, "no object for the others"
