"""A rollout as one CUDA graph: replays give what the ordinary loop gives.

Where there is no GPU, `Tape` stands for the graph: it keeps the operations of one rollout with their tensors, and does
the same operations on the same tensors again. No Python of the library runs then, as in a replayed graph. `on_tape`
sends environment and collector through their GPU branches, which must not depend on values.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium.vector import VectorWrapper
from stable_baselines3.common.callbacks import CheckpointCallback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlmin import PPO
from rlmin.learning.rollout import Rollout
from rlmin.learning.rollout_graph import RolloutGraph, obstacle
from rlmin.runs.callbacks import Hook, start_callback
from rlmin.types import Step
from rlmin.wrappers.vector import PreviousReward

T, B = 7, 5

GAMES: dict[str, dict[str, Any]] = {
    "TMaze-v0": {"length": 2},
    "RepeatFirstEasy-v0": {},
    "NoisyPositionOnlyPendulumEasy-v0": {"length": 9},
    "PositionOnlyCartPoleEasy-v0": {"length": 10},
    "BattleshipEasy-v0": {},
    "AutoencodeEasy-v0": {},
    "GridMemoryS7View3-v0": {},
}
LONG = ("BattleshipEasy-v0", "AutoencodeEasy-v0", "GridMemoryS7View3-v0")  # no end within these rollouts is due
PAIRS = [*((game, "min_gru") for game in GAMES), ("TMaze-v0", "mlp"), ("TMaze-v0", "lstm"), ("TMaze-v0", "min_lstm")]


class Elsewhere(str):
    """A device that is the CPU and does not say so."""

    type = "elsewhere"


class Keeper(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation: what it was given and what it gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.notes: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        self.notes.append((function, args, kwargs or {}, given))
        return given

    def repeat(self) -> None:
        """The same operations on the same tensors again."""
        for function, args, kwargs, given in self.notes:
            known = {x.untyped_storage().data_ptr() for x in tensors((args, kwargs))}
            for old, new in zip(tensors(given), tensors(function(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in known:  # else a view, or written in place
                    assert old.shape == new.shape, f"{function}: a shape that depends on values"
                    old.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


class Tape:
    """A `Recorder` on the CPU."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.graph: RolloutGraph
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, function: Callable[[], Any]) -> None:
        self.warmed += 1
        function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        before, stream = {name: x.clone() for name, x in self.graph.held.items()}, self.generator.get_state()
        keeper = Keeper()
        try:
            with keeper:
                function()
        finally:  # recording is to have no effect
            for name, x in before.items():
                self.graph.held[name].copy_(x)
            self.generator.set_state(stream)
        self.recorded += 1
        return lambda: self.replay(keeper)

    def replay(self, keeper: Keeper) -> None:
        self.replayed += 1
        keeper.repeat()


@pytest.fixture(autouse=True)
def operations_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape sees nothing of what numba does."""
    monkeypatch.setenv("RLMIN_KERNEL", "portable")


def make(game: str = "TMaze-v0", **settings: Any) -> PPO:
    small = {"width": 8, "horizon": T, "previous_action": True, "previous_reward": True, "seed": 3, "num_envs": B}
    agent = PPO(f"rlmin/{game}", env_kwargs=GAMES[game], **{**small, **settings})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return agent


def on_tape(agent: PPO, graph: type[RolloutGraph] = RolloutGraph, tape: type[Tape] = Tape) -> Tape:
    """Let a CPU agent collect as if it were on a GPU."""
    recorder = tape(agent.generator)
    recorder.graph = agent.collector.graph = graph(agent.collector, recorder, horizon=T)
    agent.collector.asks = False
    agent.vector.env.device = agent.vector._home = Elsewhere("cpu")  # type: ignore[attr-defined]
    return recorder


def collect(agent: PPO, on_step: Callable[[Step], bool] | None = None) -> dict[str, Tensor]:
    """One rollout, and all that lives on after it, by name."""
    rollout = agent.collector.collect(on_step)
    assert isinstance(rollout, Rollout)
    found = {name: x.clone() for name, x in rollout.batch.flatten_keys(".").items()}
    found |= {f"before.{i}": x for i, x in enumerate(tensors(rollout.state))}
    found |= {f"after.{name}": x.clone() for name, x in agent.collector.state_dict().items()}
    found["generator"] = agent.generator.get_state()
    return found | {"vector steps": torch.tensor(agent.vector._steps)}


def differing(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Names of what is not equal bit for bit; next_value, which the CPU computes for truncated rows alone, nearly."""
    assert left.keys() == right.keys()
    torch.testing.assert_close(left["next_value"], right["next_value"], atol=1e-6, rtol=1e-5)
    return [name for name in left if name != "next_value" and not torch.equal(left[name], right[name])]


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("game", "encoder"), PAIRS)
def test_replayed_rollouts_are_those_of_the_ordinary_loop(game: str, encoder: str) -> None:
    plain, taped = make(game, encoder=encoder), make(game, encoder=encoder)
    tape = on_tape(taped)
    rollouts = 9 if game == "RepeatFirstEasy-v0" else 5
    for _ in range(rollouts):
        assert differing(collect(plain), collect(taped)) == []
    assert (tape.warmed, tape.recorded, tape.replayed) == (1, 1, rollouts - 1)
    assert plain.collector.statistics.episodes > 0 or game in LONG


@pytest.mark.parametrize("forgotten", ["env", "observation", "memory", "start", "statistics"])
def test_whatever_is_not_carried_to_the_next_rollout_is_missed(forgotten: str) -> None:
    class Forgetful(RolloutGraph):
        def _hold(self) -> None:
            kept = {name: x.clone() for name, x in self.held.items() if name.startswith(forgotten)}
            super()._hold()
            for name, x in kept.items():
                self.held[name].copy_(x)

    plain, taped = make(), make()
    on_tape(taped, Forgetful)
    assert any(not same(collect(plain), collect(taped)) for _ in range(6))


def test_work_that_depends_on_values_does_not_replay() -> None:
    plain, taped = make("PositionOnlyCartPoleEasy-v0"), make("PositionOnlyCartPoleEasy-v0")
    on_tape(taped)
    taped.vector.env.device = torch.device("cpu")  # where the environment asks which rows have ended
    taped.vector._home = torch.device("cpu")  # type: ignore[attr-defined]
    try:
        alike = all(same(collect(plain), collect(taped)) for _ in range(6))
    except AssertionError as error:  # of the tape, where as many rows have not ended
        assert "a shape that depends on values" in str(error)
        alike = False
    assert not alike


@pytest.mark.parametrize("game", GAMES)
def test_to_carry_what_is_carried_changes_nothing(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLMIN_KERNEL")  # whatever is quickest
    plain, other = make(game), make(game)
    for _ in range(4):
        assert differing(collect(plain), collect(other)) == []
        other.collector.carry({name: x.clone() for name, x in other.collector.collect_carry().items()})


def test_carrying_holds_for_wrapped_environments_too() -> None:
    def wrapped() -> PPO:
        env = make("TMaze-v0").vector.env
        return PPO(PreviousReward(env), width=8, horizon=T, seed=1)

    plain, other = wrapped(), wrapped()
    for _ in range(3):
        assert differing(collect(plain), collect(other)) == []
        other.collector.carry({name: x.clone() for name, x in other.collector.collect_carry().items()})


def test_replays_go_on_from_whatever_happened_in_between() -> None:
    plain, taped = make(), make()
    tape = on_tape(taped)
    saved: dict[PPO, dict[str, Tensor]] = {}
    seen: list[Step] = []

    def looked(step: Step) -> bool:
        seen.append(step)
        return True

    def between(agent: PPO, i: int) -> None:
        if i == 3:
            saved[agent] = agent.collector.state_dict()
            agent.collector.reset(seed=11)
            agent.vector._home = Elsewhere("cpu") if agent is taped else agent.vector._home  # type: ignore[attr-defined]
        if i == 5:
            collect(agent, looked)
            assert agent.collector.collect(lambda _: False) is None
        if i == 7:
            assert agent.collector.load_state_dict(saved[agent])

    for i in range(9):
        between(plain, i)
        between(taped, i)
        assert differing(collect(plain), collect(taped)) == []
    assert len(seen) == 2 * T and (tape.recorded, tape.replayed) == (1, 8)


def test_what_a_rollout_returned_outlives_the_next_one_where_the_ordinary_loop_says_so() -> None:
    agent = make()
    on_tape(agent)
    for _ in range(3):
        collect(agent)
    rollout, saved = agent.collector.collect(), agent.collector.state_dict()
    assert rollout is not None
    before = [x.clone() for x in tensors((rollout.state, saved))]
    collect(agent)
    assert all(torch.equal(x, y) for x, y in zip(before, tensors((rollout.state, saved)), strict=True))


def test_training_by_replays_gives_the_same_weights() -> None:
    def trained(taped: bool) -> PPO:
        agent = make(normalize_observation=True)
        tape = on_tape(agent) if taped else None
        agent.learn(5 * T * B)
        assert tape is None or (tape.recorded, tape.replayed) == (1, 4), "optimizer and normaliser write in place"
        return agent

    plain, taped = trained(False), trained(True)
    assert plain.num_timesteps == taped.num_timesteps == 5 * T * B
    for x, y in zip(plain.policy.state_dict().values(), taped.policy.state_dict().values(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("game", ["TMaze-v0", "PositionOnlyCartPoleEasy-v0", "NoisyPositionOnlyPendulumEasy-v0"])
def test_a_rollout_takes_one_pass_more_than_steps(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, passes = make(game), list[int]()
    agent.collector.asks = False
    step = agent.policy.step

    def count(observation: Any, state: Any, start: Tensor, *more: Any) -> Any:
        passes.append(len(start))
        return step(observation, state, start, *more)

    monkeypatch.setattr(agent.policy, "step", count)
    cut = 0
    for number in range(4):
        batch = agent.collector.collect().batch  # type: ignore[union-attr]
        cut += int(batch["truncated"].sum())
        assert len(passes) == (number + 1) * (T + 1) and passes[-1] == B + int(batch["truncated"].sum())
    assert (cut > 0) == ("Pendulum" in game or "CartPole" in game)


def test_weights_that_moved_are_recorded_anew() -> None:
    plain, taped = make(), make()
    tape = on_tape(taped)
    for i in range(7):
        for agent in (plain, taped):
            weight = next(agent.policy.parameters())
            if i == 3:
                weight.data = weight.data.clone() * 1.5  # at another address
            if i == 5:
                weight.data.mul_(0.5)  # in place
        assert differing(collect(plain), collect(taped)) == []
    assert (tape.warmed, tape.recorded, tape.replayed) == (2, 2, 5)


def test_where_recording_fails_one_warning_names_the_cause_and_rollouts_stay_the_same() -> None:
    class Torn(Tape):
        def record(self, function: Callable[[], None]) -> Callable[[], None]:
            def torn() -> None:
                function()
                try:
                    raise RuntimeError("operation not permitted when stream is capturing\nand more")
                finally:
                    raise RuntimeError("what the end of the capture says")

            return super().record(torn)

    plain, taped = make(), make()
    tape = on_tape(taped, tape=Torn)
    assert differing(collect(plain), collect(taped)) == []
    reference = collect(plain)
    with pytest.warns(
        RuntimeWarning, match="step by step.*not permitted when stream is capturing; cuda_graph=False"
    ) as told:
        assert differing(reference, collect(taped)) == []
    assert len(told) == 1
    for _ in range(3):
        assert differing(collect(plain), collect(taped)) == []  # a second warning would be an error
    assert (tape.warmed, tape.recorded, tape.replayed) == (1, 0, 0)


def test_a_tensor_that_changes_its_type_over_a_rollout_is_a_cause() -> None:
    class Changed(RolloutGraph):
        def _body(self) -> None:
            self.player.play()
            self.player.now = replace(self.player.now, start=self.player.now.start.float())
            self._hold()

    agent = make()
    on_tape(agent, Changed)
    collect(agent)
    with pytest.warns(RuntimeWarning, match=r"'start' was \[5\] torch.bool before and is \[5\] torch.float32"):
        agent.collector.collect()


def test_what_is_no_graph_is_said() -> None:
    agent = make()
    assert agent.config.cuda_graph and agent.collector.graph is None
    vector, policy = agent.vector, agent.policy
    assert obstacle(vector, policy) == "a CUDA graph needs a CUDA device, not cpu"
    vector.device = torch.device("cuda")
    assert "is on cpu" in str(obstacle(vector, policy))
    vector.env.device = torch.device("cuda")
    assert obstacle(vector, policy) is None
    policy.value_head.compile(backend="eager")
    assert "torch.compile" in str(obstacle(vector, policy))
    vector.env = VectorWrapper(vector.env)
    assert "not a native environment" in str(obstacle(vector, make().policy))


def test_a_policy_whose_step_is_compiled_is_no_graph() -> None:
    agent = make()
    agent.vector.device = agent.vector.env.device = torch.device("cuda")
    agent.policy.step = torch.compile(agent.policy.step, backend="eager")  # type: ignore[method-assign]
    assert "torch.compile" in str(obstacle(agent.vector, agent.policy))


def test_only_a_callback_that_looks_at_steps_wants_them() -> None:
    class Ends(Hook):
        def on_rollout_end(self) -> None: ...

    class Steps(Hook):
        def on_step(self, step: Step | None) -> bool:
            return True

    assert not Hook().wants_steps and not Ends().wants_steps and Steps().wants_steps
    assert start_callback(make(), CheckpointCallback(10, "nowhere"), 1).wants_steps
    agents = [make().learn(2 * T * B, hook) for hook in (Ends(), Steps())]
    assert agents[0].num_timesteps == agents[1].num_timesteps == 2 * T * B
    assert differing(collect(agents[0]), collect(agents[1])) == []


class BrokenTape(Tape):
    """A recording that fails late: casts of weights that it left in autocast's cache were never computed."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        weights: list[Tensor] = list(self.graph.player.policy.parameters())
        kept = [x.detach().clone() for x in weights]
        with torch.no_grad():
            torch._foreach_zero_(weights)
            try:
                super().record(function)
            finally:
                torch._foreach_copy_(weights, kept)
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("clears", [True, False])
def test_after_a_recording_that_failed_no_cast_of_a_weight_is_left(
    monkeypatch: pytest.MonkeyPatch, clears: bool
) -> None:
    plain, taped = make(autocast=True), make(autocast=True)
    on_tape(taped, tape=BrokenTape)
    for agent in (plain, taped):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            collect(agent)  # warms up
    with torch.autocast("cpu", dtype=torch.bfloat16), monkeypatch.context() as patch:
        if not clears:
            patch.setattr(torch, "clear_autocast_cache", lambda: None)
        with pytest.warns(RuntimeWarning, match="out of memory"):
            found = collect(taped)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = collect(plain)
    assert same(wanted | {"next_value": found["next_value"]}, found) == clears
