"""The squashed Gaussian: density and entropy against torch.distributions, also at the edges, and an agent with it."""

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from exporting import Anything
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from rlmin import PPO, DecisionAgent, load, verify_consistency
from rlmin.data import Episode
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import ExportedPolicy, NumpyPolicy
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.policy.distributions import EDGE, Gaussian, SquashedGaussian, log_slope
from rlmin.policy.heads import action_head

BOUNDS = spaces.Box(np.array([-2, 0], np.float32), np.array([3, 0.5], np.float32))


class Peak(gym.Env[Any, Any]):
    """One step: the reward is highest at one point, 2.5 and 0.05 of BOUNDS."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), BOUNDS

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        away = (action - np.array([2.5, 0.05])) / np.array([5, 0.5])
        return np.zeros(1, np.float32), float(1 - 4 * np.square(away).sum()), True, False, {}


def drawn(mean: float, log_std: float) -> tuple[SquashedGaussian, torch.Tensor]:
    means = torch.full((4000, 2), mean, dtype=torch.float64)
    found = SquashedGaussian(means, torch.full((2,), log_std, dtype=torch.float64))
    return found, found.sample(torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.5, -2.0), (-1.5, 0.7), (4.0, -1.0)])
def test_density_and_entropy_agree_with_torch_distributions(mean: float, log_std: float) -> None:
    found, action = drawn(mean, log_std)
    oracle: Any = TransformedDistribution(Normal(found.mean, found.log_std.exp()), [TanhTransform()])
    inside = (action.abs() < EDGE).all(-1)
    assert inside.double().mean() > 0.98
    expected = oracle.log_prob(action).sum(-1)
    torch.testing.assert_close(found.log_prob(action)[inside], expected[inside], rtol=1e-6, atol=1e-6)
    entropy = -found.log_prob(action).mean()
    error = 4 * float(found.log_prob(action).std()) / math.sqrt(4000)
    assert abs(float(found.entropy()[0] - entropy)) < error
    plain = Gaussian(found.mean, found.log_std)  # neither its density nor its entropy will do
    assert not torch.allclose(plain.log_prob(action), expected, atol=0.1)
    assert abs(float(plain.entropy()[0] - entropy)) > error
    assert torch.equal(found.mode(), found.mean.tanh())


def test_the_density_integrates_to_one() -> None:
    action = torch.linspace(-EDGE, EDGE, 200_001, dtype=torch.float64)
    found = SquashedGaussian(torch.full((200_001, 1), 0.3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert abs(float(torch.trapezoid(found.log_prob(action[:, None]).exp(), action)) - 1) < 1e-4


@pytest.mark.parametrize("mean", [-60.0, -12.0, 12.0, 60.0])
def test_at_the_edges_everything_stays_finite(mean: float) -> None:
    means = torch.full((64, 2), mean, requires_grad=True)
    log_std = torch.zeros(2, requires_grad=True)
    found = SquashedGaussian(means, log_std)
    action = found.sample(torch.Generator().manual_seed(0))
    assert bool((action.abs() < 1).all())
    for value in (found.log_prob(action), found.log_prob(torch.sign(action)), found.entropy()):
        gradient = torch.autograd.grad(value.sum(), (means, log_std), retain_graph=True)
        assert all(bool(torch.isfinite(x).all()) for x in (value, *gradient))
    naive = torch.log(1 - torch.tanh(torch.tensor(mean)) ** 2)
    assert not bool(torch.isfinite(naive))  # what the stable form is there for
    exact = math.log(4) - 2 * abs(mean)  # to 1e-7 where exp(-2 |u|) has vanished
    assert float(log_slope(torch.tensor(mean))) == pytest.approx(exact, abs=1e-5)


def test_only_a_box_with_bounds_is_squashed() -> None:
    head = action_head(BOUNDS, 3, squash=True)
    action = head(4 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))).sample()
    given = head.to_env(action).numpy()
    assert all(BOUNDS.contains(one) for one in given)
    assert torch.allclose(head.from_env(torch.from_numpy(given)), action, atol=1e-5)
    half = spaces.Box(np.array([0, -1], np.float32), np.array([np.inf, 1], np.float32))
    for space in (half, spaces.Discrete(3)):
        with pytest.raises(ValueError, match="squash=True: expected a Box bounded on both sides"):
            action_head(space, 3, squash=True)
        with pytest.raises(ValueError, match="squash=True"):
            PPO(Anything(spaces.Box(-1, 1, (2,)), space), squash=True)


def test_acting_training_and_a_resumed_run_agree(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"width": 8, "num_envs": 4, "horizon": 16, "previous_action": True, "seed": 1}
    agent = PPO("Pendulum-v1", squash=True, log_std=1.0, **settings)
    assert isinstance(agent.policy.action_head.distribution(torch.zeros(1, 1)), SquashedGaussian)
    assert verify_consistency(agent, steps=64) < 1e-5
    agent.learn(64)
    agent.save(tmp_path / "run")
    other = load(tmp_path / "run")
    assert other.config.squash
    seen = np.array([[0.3, -0.2, 1.0]] * 5, np.float32)
    assert np.array_equal(agent.predict(seen, deterministic=True)[0], other.predict(seen, deterministic=True)[0])
    with pytest.raises(ValueError, match="the weights belong to another policy"):
        PPO("Pendulum-v1", **{**settings, "width": 9}).resume(tmp_path / "run")


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_export_acts_alike(deterministic: bool) -> None:
    agent = PPO(Anything(spaces.Box(-2, 2, (5,)), BOUNDS), width=6, squash=True, previous_action=True, log_std=0.5)
    with torch.no_grad():
        agent.policy.action_head.projection.bias.copy_(torch.tensor([0.7, -1.2]))
    x = np.random.default_rng(0).uniform(-2, 2, (40, 5)).astype(np.float32)
    wanted = agent.predict(x, deterministic=True)[0]
    forms: list[ExportedPolicy] = [NumpyPolicy(pack_numpy(agent.policy), seed=0)]
    if deterministic:
        forms.append(TorchExportPolicy(pack_torch(agent.policy)))
    for exported in forms:
        action, state = exported.predict(x, deterministic=deterministic)
        assert all(BOUNDS.contains(one) for one in action)
        assert np.allclose(action, wanted, atol=1e-5) == deterministic
        again, _ = exported.predict(x, state, deterministic=True)
        if deterministic:
            first = agent.predict(x, deterministic=True)[1]
            assert np.allclose(again, agent.predict(x, first, deterministic=True)[0], atol=1e-5)


def test_it_learns_a_point_near_a_bound() -> None:
    settings: dict[str, Any] = {"encoder": "mlp", "width": 8, "layers": 1, "conv": 0, "lr": 2e-2, "epochs": 4}
    agent = PPO(SyncVectorEnv([Peak] * 32), squash=True, horizon=4, seed=0, **settings)
    seen = np.zeros(1, np.float32)
    before = agent.predict(seen, deterministic=True)[0]
    agent.learn(32 * 4 * 24)
    after = agent.predict(seen, deterministic=True)[0]
    assert np.abs(after - [2.5, 0.05]).max() < 0.4 * np.abs(before - [2.5, 0.05]).max()
    assert abs(after[0] - 2.5) < 0.5 and abs(after[1] - 0.05) < 0.05


def test_a_decision_agent_takes_the_likelihood_alone() -> None:
    draw = np.random.default_rng(0)
    observations, actions = (draw.normal(size=(n, k)).clip(-1, 1).astype(np.float32) for n, k in ((9, 3), (8, 1)))
    episodes = [Episode(observations, 2 * actions, np.ones(8), True)] * 4  # at the bounds of Pendulum, too
    given: dict[str, Any] = {"env": "Pendulum-v1", "width": 8, "rows": 2, "horizon": 8, "condition": "none"}
    with pytest.raises(ValueError, match=r"squash=True: the squared error .*loss='nll'"):
        DecisionAgent(episodes, squash=True, **given)
    agent = DecisionAgent(episodes, squash=True, loss="nll", held_out=0.0, **given)
    before = agent.predict(observations[0], deterministic=True)[0]
    agent.learn(64)
    assert np.isfinite(agent.predict(observations[0], deterministic=True)[0]).all()
    assert not np.array_equal(agent.predict(observations[0], deterministic=True)[0], before)
