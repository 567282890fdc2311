"""No step of a rollout asks an accelerator for a value, or brings one from the CPU: seen on tensors without values."""

from typing import Any

import pytest
import torch
from test_rollout_graph import GAMES, B, Keeper, T, tensors

from rlmin.envs.t_maze import TMaze
from rlmin.learning.rollout import Collector
from rlmin.policy import Policy, PolicyConfig
from rlmin.vector import adapt, make_vec
from rlmin.vector.episodes import EpisodeStatistics

META = torch.device("meta")


def without_values(game: str) -> list[set[str]]:
    """Where the tensors of each operation of a rollout lie, if all the collector has lies on "meta": shapes, no values.

    Whoever asks for a value there fails, as it would in a capture; and a tensor made on the CPU is seen.
    """
    vector = adapt(make_vec(f"rlmin/{game}", B, device=META, **GAMES[game]), device=META, seed=0)
    config = PolicyConfig(width=8, previous_action=True, previous_reward=True)
    policy = Policy(vector.observation_space, vector.action_space, config).to("meta").eval()
    generator: Any = None  # there is none of that device
    collector = Collector(vector, policy, horizon=T, generator=generator)
    collector.play()  # what is done once is done
    with Keeper() as keeper:
        collector.play()
        collector.carry({name: x.clone() for name, x in collector.collect_carry().items()})
    return [{x.device.type for x in tensors(note[1:])} for note in keeper.notes]


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of a reset are read at once, which needs values."""
    monkeypatch.setattr(EpisodeStatistics, "_read", lambda self, *_: self.pending.clear())


@pytest.mark.usefixtures("unsettled")
@pytest.mark.parametrize("game", GAMES)
def test_no_step_asks_an_accelerator_for_a_value_or_brings_one_from_the_cpu(game: str) -> None:
    places = without_values(game)
    assert len(places) > 20 * T and all(place <= {"meta"} for place in places)


@pytest.mark.usefixtures("unsettled")
def test_a_game_that_asks_or_brings_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TMaze.advance
    monkeypatch.setattr(
        TMaze, "advance", lambda *of: honest(*of)._replace(terminated=torch.tensor([True] * B).to("meta"))
    )
    assert any("cpu" in place for place in without_values("TMaze-v0"))
    monkeypatch.setattr(TMaze, "advance", lambda *of: bool(of[2].any()) and honest(*of))
    with pytest.raises(RuntimeError, match="meta"):
        without_values("TMaze-v0")
