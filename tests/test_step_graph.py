"""The gradient steps of an update as one CUDA graph: replays give what the ordinary update gives.

Where there is no GPU, a tape stands for the graph, see `test_rollout_graph.py`: it keeps the operations of one update
with their tensors, and does the same operations on the same tensors again.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_rollout_graph import Keeper
from torch import Tensor

from rlmin import PPO
from rlmin.agents.ppo_graph import obstacle
from rlmin.bench.count import take_gpu_path
from rlmin.learning.flat_adam import FlatAdam
from rlmin.learning.step_graph import StepGraph

T, B = 8, 6
CASES: list[dict[str, Any]] = [
    {},
    {"bptt": 4, "value_clip": 0.3, "entropy_final": 0.0, "clip_final": 0.1},
    {"encoder": "min_lstm", "autocast": True},
    {"encoder": "gru", "shards": 2, "minibatches": 1, "previous_reward": True},
]


@pytest.fixture(autouse=True)
def operations_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape sees nothing of what numba does."""
    monkeypatch.setenv("RLMIN_KERNEL", "portable")
    monkeypatch.setattr("rlmin.agents.ppo.obstacle", lambda _: None)  # as on a GPU


class Tape:
    """A `Recorder` on the CPU, whose recording changes nothing."""

    def __init__(self, agent: PPO) -> None:
        self.agent = agent
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, function: Callable[[], Any]) -> None:
        self.warmed += 1
        function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        optimizer = self.agent.optimizer
        moments = optimizer.state[optimizer.flat].values()
        kept = [(x, x.detach().clone()) for x in (*self.agent.policy.parameters(), optimizer.flat, *moments)]
        keeper = Keeper()
        try:
            with keeper:
                function()
        finally:
            with torch.no_grad():
                for x, value in kept:
                    x.copy_(value)
        self.recorded += 1
        return lambda: self.replay(keeper)

    def replay(self, keeper: Keeper) -> None:
        self.replayed += 1
        with torch.no_grad():
            keeper.repeat()


def make(**settings: Any) -> PPO:
    options: dict[str, Any] = {"width": 8, "horizon": T, "num_envs": B, "epochs": 2, "minibatches": 3, "seed": 5}
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 2}, **options | settings)
    take_gpu_path(agent)
    return agent


def on_tape(agent: PPO, tape: type[Tape] = Tape) -> Tape:
    recorder = tape(agent)
    agent.__dict__["_graph"] = StepGraph(recorder)
    return recorder


def plain(agent: PPO) -> PPO:
    agent.__dict__["_graph"] = None
    return agent


def update(agent: PPO, done: float) -> tuple[dict[str, float], list[Tensor]]:
    with agent._autocast():
        rollout = agent.collector.collect()
    assert rollout is not None
    with agent.training():
        measured = agent.update(rollout, done=done)
    moments = agent.optimizer.state[agent.optimizer.flat].values()
    return measured, [x.detach().clone() for x in (*agent.policy.parameters(), *moments, agent.generator.get_state())]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_replayed_updates_are_the_ordinary_ones(settings: dict[str, Any]) -> None:
    ordinary, taped = plain(make(**settings)), make(**settings)
    tape = on_tape(taped)
    for i in range(5):
        (wanted, right), (found, got) = (update(agent, i / 5) for agent in (ordinary, taped))
        assert found == wanted, f"update {i}"
        torch.testing.assert_close(got, right, rtol=0, atol=0)
    assert (tape.warmed, tape.recorded, tape.replayed) == (1, 1, 4)


def test_with_a_rate_in_a_tensor_steps_are_those_with_a_number() -> None:
    agents = [plain(make()), plain(make())]
    rates = {"betas": (0.9, 0.999), "eps": 1e-5}
    agents[0].optimizer = FlatAdam(agents[0].policy.parameters(), lr=1e-3, **rates)  # type: ignore[arg-type]
    assert [isinstance(agent.optimizer.param_groups[0]["lr"], Tensor) for agent in agents] == [False, True]
    for i in range(3):
        assert update(agents[0], i / 3)[0] == update(agents[1], i / 3)[0]


@pytest.mark.parametrize("forgotten", ["batch.advantage", "state.0", "rows.1.2", "settings"])
def test_whatever_is_not_copied_is_missed(forgotten: str) -> None:
    class Forgetful(StepGraph):
        def run(self, take: Any, given: dict[str, Tensor], **more: Any) -> Tensor:
            if forgotten in self._held:
                given = given | {forgotten: self._held[forgotten]}
            return super().run(take, given, **more)

    schedule = {"entropy_final": 0.0, "clip_final": 0.1}
    ordinary, taped = plain(make(**schedule)), make(**schedule)
    taped.__dict__["_graph"] = Forgetful(Tape(taped))
    assert any(update(ordinary, i / 4)[0] != update(taped, i / 4)[0] for i in range(4))


def test_weights_that_moved_and_settings_that_changed_are_recorded_anew() -> None:
    ordinary, taped = plain(make()), make()
    tape = on_tape(taped)
    for i in range(8):
        for agent in (ordinary, taped):
            weight = agent.policy.value_head.projection.weight
            if i == 3:
                weight.data = weight.data.clone()
            if i == 6:
                agent.config = agent.advantages.config = agent.config.__class__(
                    **{**vars(agent.config), "max_grad_norm": 0.01}
                )
        assert update(ordinary, 0.0)[0] == update(taped, 0.0)[0]
    assert (tape.warmed, tape.recorded, tape.replayed) == (3, 3, 5)


class Torn(Tape):
    """A recording that fails late."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        def torn() -> None:
            function()
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

        return super().record(torn)


def test_where_recording_fails_one_warning_names_the_cause_and_updates_stay_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ordinary, taped = plain(make(autocast=True)), make(autocast=True)
    tape, events = on_tape(taped, Torn), list[str]()
    assert update(ordinary, 0.0)[0] == update(taped, 0.0)[0]
    wanted = update(ordinary, 0.0)[0]

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            events.append(name)
            return function(*given)

        return run

    monkeypatch.setattr(torch, "clear_autocast_cache", note("clear", torch.clear_autocast_cache))
    monkeypatch.setattr(taped, "_gradient_step", note("step", taped._gradient_step))
    cause = "one by one.*not permitted when stream is capturing; cuda_graph=False"
    with pytest.warns(RuntimeWarning, match=cause) as told:
        assert update(taped, 0.0)[0] == wanted
    assert len(told) == 1 and events[1:] == ["step", "clear"] * 6 + ["clear"] + ["step", "clear"] * 6, "casts never ran"
    assert update(ordinary, 0.0)[0] == update(taped, 0.0)[0]
    assert all(x.grad is None for x in taped.policy.parameters()) and tape.replayed == 0


def test_what_is_no_graph_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make()
    assert obstacle(agent) == "a CUDA graph needs a CUDA device, not cpu"
    agent.device = torch.device("cuda")
    assert obstacle(agent) is None
    for settings, reason in (
        ({"cuda_graph": False}, "off"),
        ({"target_kl": 0.1}, "target_kl"),
        ({"dropout": 0.1}, "dropout"),
        ({"compile": True}, "torch.compile"),
    ):
        other = make(**settings)
        other.device = torch.device("cuda")
        assert reason in str(obstacle(other))
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    assert "not fused" in str(obstacle(agent))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [{}, {"autocast": True}], ids=str)
def test_on_a_gpu_a_graph_is_the_ordinary_update(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    options: dict[str, Any] = {"width": 32, "horizon": 16, "num_envs": 32, "device": "cuda", "seed": 5}
    agents = [PPO("rlmin/TMaze-v0", env_kwargs={"length": 2}, **options | settings) for _ in range(2)]
    plain(agents[0])
    for _ in range(4):
        found = [update(agent, 0.0)[1] for agent in agents]
    torch.testing.assert_close(found[0][:-1], found[1][:-1], rtol=1e-3, atol=1e-5)
    graph = agents[1]._graph
    assert graph is not None and not graph.failed and graph._replay is not None
