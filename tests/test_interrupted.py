"""Whatever is raised while an agent learns, it is left as its last whole step made it: it acts, and learns on."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlmin import PPO, DecisionAgent
from rlmin.agents.agent import Agent
from rlmin.data import Episode
from rlmin.learning.flat_adam import FlatAdam

SMALL: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 2, "epochs": 2, "dropout": 0.5}
RAISED: list[BaseException] = [
    KeyboardInterrupt(),
    FloatingPointError("nan"),
    RuntimeError("out of memory"),
    SystemExit(3),
]


def ppo() -> PPO:
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, **SMALL)


def decision(**settings: Any) -> DecisionAgent:
    rng = np.random.default_rng(0)
    actions: Any = [0, 1] * 4 if not settings else rng.uniform(-1, 1, (8, 2)).astype("f4")
    episodes = [Episode(rng.normal(size=(9, 3)).astype("f4"), actions, [1.0] * 8, True) for _ in range(6)]
    return DecisionAgent(episodes, width=8, rows=2, horizon=8, dropout=0.5, weight_decay=0.1, **settings)


def squared() -> DecisionAgent:
    return decision(loss="mse")


def state(agent: Agent) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in {**agent.policy.state_dict(), **agent.learner_state()}.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


def rests(agent: Agent) -> bool:
    """Whether it is as it is between two calls of `learn`."""
    tensors = (*agent.policy.parameters(), agent.optimizer.flat)
    return not any(part.training for part in agent.policy.modules()) and all(x.grad is None for x in tensors)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("make", [ppo, decision, squared])
@pytest.mark.parametrize("where", ["take_gradient", "step", "copy"])
def test_an_error_in_a_step_undoes_that_step_alone(
    make: Callable[[], Agent], where: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make().learn(64)
    before: list[dict[str, Tensor]] = []
    real_step, real_take, real_within = FlatAdam.step, FlatAdam.take_gradient, FlatAdam.step_within
    real_copy = torch._foreach_copy_

    def watched(self: FlatAdam, *given: Any) -> None:
        before.append({**{n: x.clone() for n, x in agent.policy.state_dict().items()}, **moments(agent)})
        if len(before) == 3:
            broken()
        real_within(self, *given)

    def broken() -> None:
        def after(real: Callable[..., Any]) -> Callable[..., Any]:
            def run(*given: Any, **options: Any) -> Any:
                monkeypatch.undo()
                real(*given, **options)
                raise error

            return run

        if where == "step":
            monkeypatch.setattr(FlatAdam, "step", after(real_step))
        elif where == "copy":
            monkeypatch.setattr(torch, "_foreach_copy_", after(real_copy))
        else:
            monkeypatch.undo()
            raise error

    assert real_take is FlatAdam.take_gradient
    monkeypatch.setattr(FlatAdam, "step_within", watched)
    with pytest.raises(type(error)):
        agent.learn(64, reset_num_timesteps=False)
    monkeypatch.undo()
    assert rests(agent) and same(before[2], {**agent.policy.state_dict(), **moments(agent)})
    assert not same(before[1], before[2]), "the step before was taken: the arm that must fail"
    agent.learn(64, reset_num_timesteps=False)
    assert rests(agent)


def moments(agent: Agent) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in agent.learner_state().items() if name.startswith("optimizer.")}


@pytest.mark.parametrize("make", [decision, squared])
def test_learning_on_after_an_error_is_bit_for_bit_learning_without_it(
    make: Callable[[], DecisionAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = make(), make()
    whole.learn(160)
    calls: list[int] = []
    real = FlatAdam.step_within

    def sometimes(self: FlatAdam, *given: Any) -> None:
        calls.append(1)
        if len(calls) in (4, 7):
            raise KeyboardInterrupt
        real(self, *given)

    monkeypatch.setattr(FlatAdam, "step_within", sometimes)
    for _ in range(3):
        try:
            left = 160 - broken.num_timesteps
            broken.learn(left, reset_num_timesteps=False)
        except KeyboardInterrupt:
            continue
    assert len(calls) == 12 and same(state(whole), state(broken))


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_before_the_first_step_gives_the_value_head_its_unit_back(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = ppo().learn(64)

    def broken(self: FlatAdam) -> None:
        raise error

    names = ("value_norm.", "return_norm.", "value_head.", "discounted", "largest_reward")
    before = {name: x for name, x in state(agent).items() if name.startswith(names)}
    monkeypatch.setattr(FlatAdam, "read", broken)  # the unit has changed by then, and no step was taken
    with pytest.raises(type(error)):
        agent.learn(32, reset_num_timesteps=False)
    monkeypatch.undo()
    assert len(before) > 4 and same(before, {name: x for name, x in state(agent).items() if name in before})
    agent.learn(32, reset_num_timesteps=False)
    assert not same(before, {name: x for name, x in state(agent).items() if name in before}), "the arm that steps"


@pytest.mark.parametrize("make", [ppo, decision])
@pytest.mark.parametrize("at", ["on_step", "on_rollout_start", "on_rollout_end"])
def test_an_error_of_a_callback_leaves_an_agent_that_learns_on(make: Callable[[], Agent], at: str) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Broken(BaseCallback):
        def _fail(self) -> bool:
            if self.num_timesteps >= 32:
                raise RuntimeError("of the callback")
            return True

        _on_step = _fail

        def _on_rollout_start(self) -> None:
            if at == "on_rollout_start":
                self._fail()

        def _on_rollout_end(self) -> None:
            if at == "on_rollout_end":
                self._fail()

    if at != "on_step":
        Broken._on_step = lambda self: True
    agent = make()
    agent.stop_requested = False
    with pytest.raises(RuntimeError, match="of the callback"):
        agent.learn(128, Broken())
    assert rests(agent) and getattr(agent, "callback_env", None) is None
    updates = agent.num_updates
    agent.learn(64, reset_num_timesteps=False)
    assert agent.num_updates > updates and rests(agent)


def test_a_request_to_stop_ends_with_the_learning_it_was_made_in() -> None:
    agent = ppo()

    def stop(local: dict[str, Any], _: dict[str, Any]) -> bool:
        agent.stop_requested = True
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent.learn(128, stop)
    agent.learn(64)
    assert agent.num_updates == 2


@pytest.mark.parametrize("make", [ppo, decision])
def test_gradients_that_somebody_has_switched_off_are_taken(make: Callable[[], Agent]) -> None:
    usual, other = make(), make()
    for agent in (usual, other):
        torch.manual_seed(0)  # of dropout
        with nullcontext() if agent is usual else torch.no_grad():
            agent.learn(64)
            assert torch.is_grad_enabled() is (agent is usual), "it is as it was"
    assert usual.num_updates > 0 and same(state(usual), state(other))
