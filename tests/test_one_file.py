"""The one-file example: its network and its update are those of rlmin's PPO, and it learns."""

import runpy
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from rlmin import PPO, PPOConfig
from rlmin.learning.rollout import Rollout
from rlmin.learning.schedule import schedule

SCRIPT = Path(__file__).parent.parent / "examples" / "ppo_min_gru_one_file.py"
T, B, D, A, WIDTH = 13, 6, 3, 4, 10
PARTS = {
    "inputs": "trunks.0.inputs.embed.0.net",
    "blocks": "trunks.0.encoder.blocks",
    "norm": "trunks.0.encoder.norm",
    "actor": "action_head.projection",
    "critic": "value_head.projection",
}
"""Where the library has a part of the example's network."""


class Task(gym.Env[Any, Any]):
    observation_space, action_space = gym.spaces.Box(-9, 9, (D,)), gym.spaces.Discrete(A)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample() * 0, {}


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def example(*, own_scan: bool) -> SimpleNamespace:
    names = runpy.run_path(str(SCRIPT))
    if own_scan:
        names["scan"].__globals__["linear_scan"] = None
    return SimpleNamespace(**names)


def name_in_library(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{PARTS[part]}.{rest}"


def draw_rollout(seed: int, scale: float) -> dict[str, Tensor]:
    """A rollout that nobody played, with every kind of end; policy and value of a stranger."""
    torch.manual_seed(seed)
    ends = torch.rand(T, B)
    start = torch.zeros(T, B, dtype=torch.bool)
    start[1:] = (ends < 0.3)[:-1]
    start[0, :2] = True
    real: dict[str, Tensor] = {name: torch.randn(T, B) * scale for name in ("reward", "value", "next_value")}
    return real | {
        "observation": torch.randn(T, B, D),
        "start": start,
        "action": torch.randint(A, (T, B)),
        "log_prob": torch.rand(T, B) * -2.5,
        "terminated": ends < 0.15,
        "truncated": (ends >= 0.15) & (ends < 0.3),
    }


def in_library(r: dict[str, Tensor], state: Any) -> Rollout:
    columns: dict[str, Any] = dict(r) | {"filler": torch.zeros(T, B, dtype=torch.bool)}
    columns["observation"] = TensorDict({"observation": r["observation"]}, [T, B])
    columns["action"] = r["action"][..., None]
    return Rollout(TensorDict(columns, [T, B]), (tuple(state),))


def make_pair(*, own_scan: bool) -> tuple[PPO, SimpleNamespace, Any]:
    """The library's agent and the example, with equal settings and weights; and the example's learner."""
    script = example(own_scan=own_scan)
    args = script.Args(width=WIDTH, num_envs=B, horizon=T, epochs=3, minibatches=2)
    same = {f.name: getattr(args, f.name) for f in fields(args)} | {"steps": None}
    settings = {name: value for name, value in same.items() if name in PPOConfig.__dataclass_fields__}
    env = gym.vector.SyncVectorEnv([Task] * B)
    library = PPO(env, seed=0, **settings)
    agent = script.Agent(D, A, args)
    weights = dict(library.policy.named_parameters())
    assert len(weights) == len(list(agent.parameters()))
    with torch.no_grad():
        for name, x in agent.named_parameters():
            x.copy_(torch.randn_like(x) * 0.3)
            weights[name_in_library(name)].copy_(x)
    return library, script, script.Learner(agent, args)


@torch.no_grad()
def largest_difference(library: PPO, agent: Any) -> float:
    weights = dict(library.policy.named_parameters())
    return max(float((x - weights[name_in_library(name)]).abs().max()) for name, x in agent.named_parameters())


def test_the_settings_are_the_librarys_defaults() -> None:
    args, config = example(own_scan=True).Args(), PPOConfig()
    shared = [f.name for f in fields(args) if hasattr(config, f.name)]
    assert len(shared) == len(fields(args)) - 2, "all but steps and seed"
    assert {name: getattr(args, name) for name in shared if name != "minibatches"} == {
        name: getattr(config, name) for name in shared if name != "minibatches"
    }
    assert args.minibatches == config.minibatches_of(args.num_envs)


@pytest.mark.parametrize("own_scan", [True, False], ids=["torch", "rlmin"])
def test_the_network_says_what_the_library_says(own_scan: bool, float64: None) -> None:
    library, _, learner = make_pair(own_scan=own_scan)
    r, agent = draw_rollout(0, 1.0), learner.agent
    state = [(torch.randn(B, 3, WIDTH), torch.randn(B, WIDTH)) for _ in agent.blocks]
    logits, value, after = agent(r["observation"], state, r["start"])
    out: Any = library.policy.unroll({"observation": r["observation"]}, (tuple(state),), r["start"])
    torch.testing.assert_close(logits.log_softmax(-1), out.distribution.log_p.squeeze(-2), rtol=0, atol=1e-12)
    torch.testing.assert_close(value, out.value, rtol=0, atol=1e-12)
    torch.testing.assert_close(tuple(after), out.state[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("own_scan", [True, False], ids=["torch", "rlmin"])
def test_updates_leave_the_weights_that_the_library_has(
    own_scan: bool, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, _, learner = make_pair(own_scan=own_scan)
    state = [(torch.randn(B, 3, WIDTH), torch.randn(B, WIDTH)) for _ in learner.agent.blocks]
    before = {name: x.detach().clone() for name, x in learner.agent.named_parameters()}
    orders, shuffle = torch.Generator(), torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **ignored: shuffle(n, generator=orders))
    for k, scale in enumerate((1.0, 30.0)):  # the second rollout changes the unit of the critic
        r = draw_rollout(k, scale)
        orders.manual_seed(k)
        library.update(in_library(r, state), done=0.25 * k)
        orders.manual_seed(k)
        learner.update(r, state, done=0.25 * k)
        assert largest_difference(library, learner.agent) < 1e-6, f"rollout {k}"
        assert learner.agent.scale == pytest.approx(float(library.policy.value_head.scale), rel=1e-9)
    moved = max(float((x.detach() - before[name]).abs().max()) for name, x in learner.agent.named_parameters())
    assert moved > 1e-3
    assert schedule(1e-3, 0.0, 0.25) == 1e-3 * 0.75


@pytest.mark.parametrize("setting", ["gamma", "clip", "ratio_penalty", "entropy", "value_weight", "max_grad_norm"])
def test_another_setting_is_another_update(setting: str, float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _, learner = make_pair(own_scan=True)
    setattr(learner.args, setting, getattr(learner.args, setting) * 0.8)
    r, orders, shuffle = draw_rollout(0, 1.0), torch.Generator(), torch.randperm
    state = learner.agent.initial_state(B)
    monkeypatch.setattr(torch, "randperm", lambda n, **ignored: shuffle(n, generator=orders))
    orders.manual_seed(0)
    library.update(in_library(r, state))
    orders.manual_seed(0)
    learner.update(r, state)
    assert largest_difference(library, learner.agent) > 1e-6


@pytest.mark.slow
def test_it_learns_what_needs_memory() -> None:
    script = example(own_scan=False)
    assert script.main(script.Args(steps=60_000, width=64)) > 250, "an untrained policy falls after about 22 steps"
