"""PPO: one update from one rollout. What each setting does to the weights, and what stops it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rlmin import PPO, PPOConfig, make_vec, verify_consistency
from rlmin.agents.warmup import warm_up_policy
from rlmin.learning.rollout import Rollout
from rlmin.policy import Policy
from rlmin.types import State

T, B = 12, 4


def make(seed: int = 0, **settings: Any) -> PPO:
    small = {"width": 8, "horizon": T, "num_envs": B, "minibatches": 2}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, seed=seed, **{**small, **settings})


def collect(agent: PPO) -> Rollout:
    rollout = agent.collector.collect()
    assert rollout is not None
    return rollout


def updated(seed: int = 0, done: float = 0.0, **settings: Any) -> tuple[PPO, dict[str, float]]:
    """An agent after one update, and what the update measured."""
    agent = make(seed, **settings)
    return agent, agent.update(collect(agent), done=done)


def weights(agent: PPO) -> list[Tensor]:
    return [x.clone() for x in agent.policy.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def leaves(state: State) -> list[Tensor]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple) else [state]


# what is repeatable


def test_a_seed_decides_everything() -> None:
    first, again, other = (weights(make(seed).learn(3 * T * B)) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_making_an_agent_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    make().learn(T * B)
    assert torch.equal(torch.rand(3), wanted)


def test_steps_are_counted_over_all_environments_and_rounded_up_to_rollouts() -> None:
    agent = make().learn(T * B + 1)
    assert agent.num_timesteps == 2 * T * B and agent.num_updates == 2
    assert agent.learn(T * B, reset_num_timesteps=False).num_timesteps == 3 * T * B
    assert agent.learn(T * B).num_timesteps == T * B


# windows


def test_a_window_as_long_as_the_rollout_is_no_window() -> None:
    whole, window, half = (weights(make(bptt=bptt).learn(3 * T * B)) for bptt in (None, T, T // 2))
    assert same(whole, window)
    assert not same(whole, half)


def test_windows_begin_with_the_memory_of_the_pass_before_them_under_the_present_weights() -> None:
    agent = make(bptt=3)
    collect(agent)
    batch, state = collect(agent)
    before = leaves(agent._window_states(batch, state))
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.1)
    after = leaves(agent._window_states(batch, state))
    with torch.no_grad():
        for t in range(T):
            if t % 3 == 0:
                wanted, rows = leaves(state), slice(t // 3 * B, (t // 3 + 1) * B)
                assert all(torch.allclose(x, y[rows], atol=1e-5) for x, y in zip(wanted, after, strict=True))
            seen = {name: leaf[t] for name, leaf in batch["observation"].items()}
            state = agent.policy.step(seen, state, batch["start"][t]).state
    stale = max(float((x - y)[B:].abs().max()) for x, y in zip(before, after, strict=True))
    assert stale > 1e-2, "states kept from an earlier epoch are wrong: the arm that must fail"


def test_every_step_is_in_exactly_one_minibatch_of_an_epoch() -> None:
    for bptt in (None, 4):
        agent = make(bptt=bptt, epochs=1)
        batch, state = collect(agent)
        batch = agent.advantages(batch, agent.policy.value_head)
        batch["value"] = torch.arange(T * B).reshape(T, B).float()
        parts = [part["value"] for part, _ in agent._minibatches(batch, state)]
        assert len(parts) == 2 and all(part.shape[0] == (bptt or T) for part in parts)
        assert torch.cat([part.flatten() for part in parts]).sort().values.tolist() == list(range(T * B))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minibatches": 3}, r"minibatches=3 must divide the 4 environments of a rollout \(num_envs=4\)"),
        ({"minibatches": 0}, "minibatches: expected a whole number of at least 1 or None, got 0"),
        ({"minibatches": 5, "bptt": 4}, r"minibatches=5 must divide the 12 windows of 4 steps of a rollout"),
        ({"bptt": 5}, "bptt=5 must divide horizon=12"),
        ({"bptt": 0}, "bptt: expected a whole number of at least 1 or None, got 0"),
        ({"horizon": 0}, "horizon: expected a whole number from 1 to .*, got 0"),
        ({"gamma": 1.1}, "gamma: expected a number from 0 to 1, got 1.1"),
        ({"lr": 0.0}, "lr: expected a number above 0, got 0.0"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm: expected a number above 0, got nan"),
        ({"gama": 0.9}, "no setting 'gama'; did you mean 'gamma'"),
        ({"encoder": "min_gro"}, "did you mean 'min_gru'"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_without_a_wish_there_are_four_minibatches_or_as_many_as_divide() -> None:
    parts = PPOConfig().minibatches_of
    assert [parts(rows) for rows in (16, 6, 3, 1)] == [4, 2, 1, 1]
    assert PPOConfig(horizon=8, bptt=2).minibatches_of(1) == 4


# the update


def test_a_divergence_above_its_target_ends_the_update_early() -> None:
    assert updated(lr=0.05, epochs=4)[1]["gradient_steps"] == 8
    assert updated(lr=0.05, epochs=4, target_kl=1e9)[1]["gradient_steps"] == 8
    assert updated(lr=0.05, epochs=4, target_kl=1e-3)[1]["gradient_steps"] < 8


def test_schedules_run_from_the_first_to_the_final_number() -> None:
    settings: dict[str, Any] = {"lr": 1e-2, "lr_final": 0.0, "entropy": 0.2, "entropy_final": 0.1}
    settings["normalize_value"] = False  # a change of the value's unit is no step, but it changes the weights
    for done, lr, entropy in ((0.0, 1e-2, 0.2), (0.5, 5e-3, 0.15), (1.0, 0.0, 0.1), (7.0, 0.0, 0.1)):
        agent, measured = updated(done=done, **settings)
        assert measured["learning_rate"] == pytest.approx(lr) == agent.optimizer.param_groups[0]["lr"]
        assert measured["entropy_weight"] == pytest.approx(entropy)
    assert same(weights(updated(done=1.0, **settings)[0]), weights(make()))
    assert not same(weights(updated(done=0.5, **settings)[0]), weights(make()))
    assert updated(done=0.5, lr_final=None)[1]["learning_rate"] == 1e-3, "constant where no final number is given"


def test_the_gradient_is_scaled_to_its_largest_norm_and_its_own_norm_is_reported() -> None:
    def applied(agent: PPO) -> float:
        grad = agent.optimizer.flat.grad
        assert grad is not None
        return float(grad.norm())

    once = {"epochs": 1, "minibatches": 1}
    free, measured = updated(max_grad_norm=1e9, **once)
    assert applied(free) == pytest.approx(measured["grad_norm"], rel=1e-5)
    assert measured["grad_norm"] > 0.01
    held, again = updated(max_grad_norm=0.01, **once)
    assert again["grad_norm"] == pytest.approx(measured["grad_norm"], rel=1e-5)
    assert applied(held) == pytest.approx(0.01, rel=1e-3)


def test_value_clipping_acts_where_it_is_narrow() -> None:
    def trained(clip: float | None) -> Tensor:
        return torch.cat([x.flatten() for x in weights(updated(lr=0.01, value_clip=clip)[0])])

    plain, wide, narrow = trained(None), trained(100.0), trained(1e-3)
    torch.testing.assert_close(plain, wide, atol=1e-3, rtol=0)  # rounds a little differently
    assert (plain - narrow).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:the value of .* is far beyond:UserWarning")  # of tiny rewards, in the failing arm
@pytest.mark.parametrize("setting", ["normalize_value", "normalize_return"])
@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_what_is_learned_does_not_depend_on_the_unit_of_reward(setting: str, unit: float) -> None:
    def trained(unit: float, *, normalize: bool) -> Tensor:
        settings: dict[str, Any] = {"normalize_value": False, "normalize_return": False, setting: normalize}
        agent = make(gamma=0.9, **settings)
        for _ in range(3):
            rollout = collect(agent)
            rollout.batch["reward"] *= unit
            agent.update(rollout)
        return torch.cat([x.flatten() for name, x in agent.policy.named_parameters() if "value_head" not in name])

    torch.testing.assert_close(trained(1.0, normalize=True), trained(unit, normalize=True), atol=2e-4, rtol=1e-3)
    assert (trained(1.0, normalize=False) - trained(unit, normalize=False)).abs().max() > 2e-3, "the failing arm"


def test_an_impossible_value_is_cut_off_before_it_is_bootstrapped_from_and_named() -> None:
    agent = make(gamma=0.9)
    rollout = collect(agent)
    largest = float(rollout.batch["reward"].abs().max())
    assert largest > 0
    rollout.batch["value"].fill_(1e6)
    rollout.batch["next_value"].fill_(1e6)
    with pytest.warns(UserWarning, match=r"the value of 100% of the steps is far beyond .* try a smaller lr"):
        batch = agent.advantages(rollout.batch, agent.policy.value_head)
        agent.advantages.check([float(x) for x in agent.advantages.facts])
    assert float(batch["target"].abs().max()) <= largest * 10.001, "max |reward| / (1 - gamma)"
    rollout.batch["value"].fill_(1.5 * 10 * largest)  # an error like any other: cut off, and no warning
    assert float(agent.advantages(rollout.batch, agent.policy.value_head)["target"].abs().max()) <= largest * 10.001
    agent.advantages.check([float(x) for x in agent.advantages.facts])
    endless = make(gamma=1.0)
    rollout = collect(endless)
    rollout.batch["value"].fill_(1e6)
    rollout.batch["next_value"].fill_(1e6)
    assert float(endless.advantages(rollout.batch, endless.policy.value_head)["target"].abs().max()) > 9e5, "no bound"


def test_the_update_holds_every_step_near_the_rollout_not_only_their_mean() -> None:
    far: dict[str, Any] = {"lr": 0.02, "epochs": 8, "max_grad_norm": 10.0}
    held, free = updated(ratio_penalty=100.0, **far)[1], updated(ratio_penalty=0.0, **far)[1]
    assert held["kl_max"] < 0.5 * free["kl_max"]
    assert held["update_kl"] < free["update_kl"] and held["update_norm"] > 0


def test_observation_statistics_stand_still_from_the_first_step_to_the_last_epoch() -> None:
    def count(policy: Policy) -> float:
        return float(policy.state_dict()["trunks.0.inputs.embed.0.norm.count"])

    agent = make(normalize_observation=True, lr=1e-30, epochs=2)
    first = collect(agent)
    assert count(agent.policy) == 0
    agent.update(first)
    assert count(agent.policy) == T * B
    seen = first.batch["observation", "observation"].flatten(0, 1).double()
    mean = agent.policy.state_dict()["trunks.0.inputs.embed.0.norm.mean"]
    torch.testing.assert_close(mean, seen.mean(0))
    second = collect(agent)
    assert agent.update(second)["approx_kl"] < 1e-10 and count(agent.policy) == 2 * T * B
    third = collect(agent)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(0.2)
    fourth = collect(agent)
    agent.policy.update_normalizer(
        {"observation": 9 * third.batch["observation", "observation"]}, ~third.batch["filler"]
    )
    assert agent.update(fourth)["approx_kl"] > 1e-8, "statistics that move in between: the arm that must fail"
    verify_consistency(agent)


def test_autocast_trains_and_leaves_float32_weights() -> None:
    plain, cast = make().learn(3 * T * B), make(autocast=True).learn(3 * T * B)
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in cast.policy.parameters())
    assert not same(weights(plain), weights(cast)), "bfloat16 products round otherwise"
    gap = max(float((x - y).abs().max()) for x, y in zip(weights(plain), weights(cast), strict=True))
    assert gap < 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("autocast", [False, True])
def test_a_compiled_update_is_the_update(autocast: bool) -> None:
    once: dict[str, Any] = {"layers": 1, "epochs": 1, "autocast": autocast}
    plain, fast = updated(**once)[0], updated(compile=True, **once)[0]
    torch.testing.assert_close(weights(fast), weights(plain), atol=2e-3 if autocast else 1e-5, rtol=0)
    assert not same(weights(fast), weights(make(**once)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "fx_graph_cache", False)
    with pytest.raises(RuntimeError, match=r"compile=True: torch\.compile failed"):
        updated(compile=True, width=9, layers=1)


@pytest.mark.parametrize("name", ["min_gru", "min_lstm", "gru", "lstm", "mlp"])
def test_every_parameter_is_moved(name: str) -> None:
    agent = make(encoder=name, previous_action=True, previous_reward=True, share_memory=False)
    before = {key: x.clone() for key, x in agent.policy.named_parameters()}
    agent.learn(4 * T * B)
    assert not [key for key, x in agent.policy.named_parameters() if torch.equal(x, before[key])]


@pytest.mark.parametrize("settings", [{}, {"share_memory": False}, {"encoder": "lstm"}])
def test_warming_up_leaves_weights_gradients_and_random_numbers_as_they_are(settings: dict[str, Any]) -> None:
    agent = make(**settings)
    before = [x.clone() for x in weights(agent)]
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    warm_up_policy(agent.policy, horizon=T, num_envs=B)
    assert torch.equal(torch.rand(1), want) and same(weights(agent), before)
    assert all(x.grad is None for x in agent.policy.parameters())


@pytest.mark.parametrize(("encoder", "scans"), [("min_gru", {"gru"}), ("min_lstm", {"lstm"}), ("mlp", set())])
def test_warming_up_runs_the_kernels_of_the_agent_and_no_others(
    encoder: str, scans: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    if not gpu.INTERPRETED:
        pytest.skip("without TRITON_INTERPRET=1 only a GPU runs them")
    agent, launched, launch = make(encoder=encoder), set[tuple[str, str, bool, int]](), gpu._launch

    def note(kernel: str, name: str, activation: str, reverse: bool, like: Tensor, *more: Any) -> None:
        launched.add((kernel, name, reverse, like.shape[0]))
        launch(kernel, name, activation, reverse, like, *more)

    monkeypatch.setenv("RLMIN_KERNEL", "gpu")
    monkeypatch.setattr(gpu, "_launch", note)
    agent.warm_up()
    of_encoder = {(kernel, name, kernel == "backward", T) for name in scans for kernel in ("forward", "backward")}
    assert launched == of_encoder | {("forward", "linear", True, T)}, "the last one is that of gae"


# what stops it


class Poisoned(gym.Env[Any, Any]):
    """Gives `poison` as reward or observation at its seventh step."""

    def __init__(self, where: str = "reward", poison: float = float("nan")) -> None:
        self.where, self.poison, self.t = where, poison, 0
        self.observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        bad = self.poison if self.t == 7 else 0.0
        seen = np.full(2, bad if self.where == "observation" else 0.0, np.float32)
        return seen, bad if self.where == "reward" else 0.0, False, False, {}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_a_reward_or_observation_that_is_no_number_stops_training_with_its_name(where: str, poison: float) -> None:
    agent = PPO(Poisoned(where, poison), width=8, horizon=5)
    with pytest.raises(FloatingPointError, match=rf"{where}.*environment 0 at step 7"):
        agent.learn(100)
    assert agent.num_updates == 1 and all(x.isfinite().all() for x in agent.policy.parameters())


@pytest.mark.parametrize(
    ("tensor", "number", "name"), [("log_prob", -torch.inf, "policy_loss"), ("reward", 1e30, "grad_norm")]
)
def test_a_loss_that_is_no_number_is_named_and_no_step_is_taken(tensor: str, number: float, name: str) -> None:
    agent = make(normalize_advantage=False)
    agent.learn(T * B)
    rollout = collect(agent)
    rollout.batch[tensor][:] = number
    before = weights(agent)
    with pytest.raises(FloatingPointError, match=rf"{name} is .* at step 48 \(update 1\)"):
        agent.update(rollout)
    assert same(before, weights(agent))


def test_an_agent_without_environment_says_so() -> None:
    env = make_vec("rlmin/TMaze-v0", 2)
    agent = PPO.from_spaces(env.single_observation_space, env.single_action_space, config=PPOConfig(width=8))
    with pytest.raises(ValueError, match="no environment; give it one with set_env"):
        agent.learn(10)
    agent.set_env(env)
    agent.learn(10)
    assert agent.get_env() is env
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        agent.set_env("CartPole-v1")
    assert agent.get_env() is env


def test_the_last_update_learns_even_where_the_rate_falls_to_zero() -> None:
    agent = make(lr_final=0.0)
    before = [x.clone() for x in agent.policy.parameters()]
    agent.learn(T * B)
    assert any(not torch.equal(x, y) for x, y in zip(before, agent.policy.parameters(), strict=True))


def test_a_reward_too_large_for_float32_is_named_before_anything_is_learned() -> None:
    agent = make()
    rollout = collect(agent)
    rollout.batch["reward"][3, 1] = 3e38
    rollout.batch["reward"][4, 1] = 3e38
    before = [x.clone() for x in agent.policy.parameters()]
    with pytest.raises(FloatingPointError, match="advantage: expected finite numbers"):
        agent.update(rollout)
    assert all(torch.equal(x, y) for x, y in zip(before, agent.policy.parameters(), strict=True))


@pytest.mark.parametrize(
    "settings", [{"conv": 1}, {"conv": -1}, {"mlp": -1}, {"encoder": "mingru"}, {"candidate": "x"}]
)
def test_a_setting_of_the_policy_that_makes_no_sense_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        make(**settings)
