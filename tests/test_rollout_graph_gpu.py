"""A rollout as one CUDA graph, on a GPU: replays are the ordinary loop, and nothing waits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_rollout_graph import GAMES, PAIRS, B, T, collect, differing, make
from torch import Tensor

from rlmin import PPO

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(game: str, **settings: Any) -> PPO:
    return make(game, device="cuda", **settings)


@gpu
@pytest.mark.parametrize(("game", "encoder"), PAIRS)
def test_on_a_gpu_replays_are_the_ordinary_loop(game: str, encoder: str) -> None:
    plain, graphed = on_gpu(game, encoder=encoder, cuda_graph=False), on_gpu(game, encoder=encoder)
    assert plain.collector.graph is None and graphed.collector.graph is not None
    drawn: list[Tensor] = []
    for _ in range(5):
        left, right = collect(plain), collect(graphed)
        assert differing(left, right) == []
        drawn.append(right["log_prob"])
    assert not graphed.collector.graph.failed
    assert not torch.equal(drawn[-1], drawn[-2]), "the generator goes on from replay to replay"


@gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("game", GAMES)
def test_on_a_gpu_no_rollout_waits(game: str, cuda_graph: bool) -> None:
    agent = on_gpu(game, cuda_graph=cuda_graph)
    for _ in range(3):
        collect(agent)
    play = agent.collector.play if agent.collector.graph is None else agent.collector.graph.run
    with torch.no_grad(), no_waiting():
        play()


@gpu
def test_on_a_gpu_a_few_updates_train_and_a_loaded_agent_goes_on(tmp_path: Any) -> None:
    agent = on_gpu("TMaze-v0")
    agent.learn(6 * T * B)
    assert agent.collector.graph is not None and not agent.collector.graph.failed
    assert agent.collector.statistics.episodes > 0
    agent.save(tmp_path / "run")
    again = PPO.load(tmp_path / "run", env=agent.vector, device="cuda")
    again.learn(3 * T * B, reset_num_timesteps=False)


@gpu
def test_on_a_gpu_a_failed_capture_leaves_random_numbers_and_rollouts_as_they_were() -> None:
    plain, graphed = on_gpu("TMaze-v0", cuda_graph=False), on_gpu("TMaze-v0")
    assert graphed.collector.graph is not None
    real = graphed.vector.env.advance

    def asks(game: Any, action: Tensor) -> Any:
        bool(action.any())
        return real(game, action)

    graphed.vector.env.advance = asks
    assert differing(collect(plain), collect(graphed)) == []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert differing(collect(plain), collect(graphed)) == []
    assert [str(x.message) for x in told if issubclass(x.category, RuntimeWarning)]
    torch.randn(3, device="cuda")
    assert differing(collect(plain), collect(graphed)) == []
