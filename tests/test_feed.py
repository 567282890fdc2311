"""Feed: batches drawn ahead, or gathered on a device, are those of the packing, whatever happens in between."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from tensordict import TensorDict
from torch import Tensor

from rlmin import DecisionAgent
from rlmin.agents import decision_data
from rlmin.data import Dataset, Episode, load_dataset
from rlmin.data.feed import Feed, has_room
from rlmin.data.packed_rows import PackedRows
from rlmin.data.packing import Packing
from rlmin.data.windows import Windows

CPU = torch.device("cpu")
KINDS: list[Any] = [
    pytest.param(lambda data: PackedRows(data, rows=3, horizon=4, stagger=True), id="rows"),
    pytest.param(lambda data: Windows(data, rows=3, length=4), id="windows"),
]


def dataset() -> Dataset:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            random.normal(size=(length + 1, 2)).astype(np.float32),
            random.integers(0, 3, length),
            random.normal(size=length).astype(np.float32),
            True,
        )
        for length in (5, 1, 8, 4, 13, 2)
    ]
    return load_dataset(episodes, observation_space=spaces.Box(-9, 9, (2,)), action_space=spaces.Discrete(3))


def same(a: TensorDict, b: TensorDict) -> bool:
    return bool((a == b).all())


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


@pytest.mark.parametrize("make", KINDS)
def test_batches_and_places_are_the_same_drawn_ahead_or_not(make: Callable[[Dataset], Packing]) -> None:
    data = dataset()
    plain, feed = make(data), Feed(make(data), CPU, ahead=True)
    for _ in range(2):
        with feed:
            for _ in range(5):
                assert equal(feed.state_dict(), plain.state_dict())
                assert same(feed.draw(), plain.draw())
            assert equal(feed.state_dict(), plain.state_dict())
            ahead = feed._next
            assert ahead is not None and ahead.exception() is None
            assert not equal(feed.packing.state_dict(), plain.state_dict()), "nothing was drawn ahead"
        assert equal(feed.packing.state_dict(), plain.state_dict()), "what was drawn ahead is put back"
    assert same(feed.draw(), plain.draw())
    assert not [x for x in threading.enumerate() if x.name.startswith("rlmin-feed")]


@pytest.mark.parametrize("make", KINDS)
def test_a_place_is_restored_while_a_batch_is_on_its_way(make: Callable[[Dataset], Packing]) -> None:
    with Feed(make(dataset()), CPU, ahead=True) as feed:
        feed.draw()
        place = {name: x.clone() for name, x in feed.state_dict().items()}
        wanted = [feed.draw() for _ in range(4)]
        feed.load_state_dict(place)
        assert equal(feed.state_dict(), place)
        assert all(same(feed.draw(), batch) for batch in wanted)


def test_a_batch_that_fails_is_the_next_one_still(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    plain, real, broken = PackedRows(data, rows=3, horizon=4), Packing._gather, [True]

    def sometimes(self: Packing, index: np.ndarray, start: np.ndarray) -> TensorDict:
        if broken[0] and self is feed.packing:
            raise OSError("disk")
        return real(self, index, start)

    monkeypatch.setattr(Packing, "_gather", sometimes)
    with Feed(PackedRows(data, rows=3, horizon=4), CPU, ahead=True) as feed:
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                feed.draw()
        broken[0] = False
        for _ in range(3):
            assert same(feed.draw(), plain.draw())
    broken[0] = True
    with feed, pytest.raises(OSError, match="disk"):
        feed.draw()
    assert equal(feed.packing.state_dict(), plain.state_dict())


@pytest.mark.parametrize("make", KINDS)
def test_every_leaf_of_a_batch_is_on_the_device_of_the_steps(make: Callable[[Dataset], Packing]) -> None:
    data = dataset()
    packing, plain = make(data), make(data)
    packing.place(data.step.to("meta"))
    for here, there in ((packing.draw(), plain.draw()), (next(packing.once()), next(plain.once()))):
        assert {x.device.type for x in here.values(True, True)} == {"meta"}
        shapes = [{name: x.shape for name, x in batch.items(True, True)} for batch in (here, there)]
        assert shapes[0] == shapes[1]


def test_what_fits_into_a_share_of_a_devices_memory_is_kept_there(monkeypatch: pytest.MonkeyPatch) -> None:
    step, device = dataset().step, torch.device("cuda")
    size = 33 * (2 * 4 + 8 + 4)  # observation, action, reward
    for free, wanted in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        assert has_room(step, device) is wanted
    assert not has_room(step, CPU)


class Saves(BaseCallback):
    """Keep the learner's state after `at` gradient steps, or stop there by an error."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.at, self.error, self.state = at, error, dict[str, Tensor]()

    def _on_step(self) -> bool:
        agent: Any = self.model
        if self.n_calls == self.at:
            self.state = {name: x.clone() for name, x in agent.learner_state().items()}
            if self.error is not None:
                raise self.error
        return True


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents on a CPU draw ahead, too."""
    monkeypatch.setattr(
        decision_data, "make_feed", lambda _, device, packing, held_out: Feed(packing, device, ahead=True)
    )


def make() -> DecisionAgent:
    return DecisionAgent(dataset(), width=8, rows=2, horizon=6, dropout=0.3, held_out=0.0)


def trained(agent: DecisionAgent) -> dict[str, Tensor]:
    return {**agent.policy.state_dict(), **agent.learner_state()}


def test_an_agent_whose_batches_are_drawn_ahead_learns_bit_for_bit_the_same(request: pytest.FixtureRequest) -> None:
    plain, kept = make(), Saves(7)
    plain.learn(240, callback=kept)
    request.getfixturevalue("ahead")
    agent, at_seven = make(), Saves(7)
    agent.learn(240, callback=at_seven)
    assert agent.feed.ahead and not plain.feed.ahead
    assert equal(at_seven.state, kept.state), "a checkpoint holds the place of the next batch, not of the one drawn"
    assert equal(trained(agent), trained(plain))


@pytest.mark.usefixtures("ahead")
def test_an_error_while_a_batch_is_on_its_way_leaves_the_place_after_the_last_step() -> None:
    whole, broken = make().learn(240), make()
    with pytest.raises(KeyboardInterrupt):
        broken.learn(240, callback=Saves(7, KeyboardInterrupt()))
    broken.learn(240 - broken.num_timesteps, reset_num_timesteps=False)
    assert equal(trained(broken), trained(whole))
