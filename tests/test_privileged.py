"""The asymmetric critic: the value reads entries of the observation that acting neither reads nor needs."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from exporting import Anything
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from rlmin import PPO, load, verify_consistency
from rlmin.evaluation.evaluate import evaluate
from rlmin.export.agreement import largest_difference
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.export.torch_export import TorchExportPolicy, pack_torch
from rlmin.policy import Policy, PolicyConfig
from rlmin.vector import adapt

SEEN = spaces.Dict(cue=spaces.Box(-1, 1, (3,)))
WHOLE = spaces.Dict(cue=spaces.Box(-1, 1, (3,)), truth=spaces.MultiBinary(2))
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "num_envs": 4, "horizon": 16, "seed": 0}


class Coin(gym.Env[Any, Any]):
    """A coin decides all rewards of an episode of four steps. Only `coin` shows it, and no action matters."""

    observation_space = spaces.Dict(noise=spaces.Box(-1, 1, (2,)), coin=spaces.Discrete(2))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.coin, self.time = int(self.np_random.integers(2)), 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._look(), 2.0 * self.coin - 1, self.time == 4, False, {}

    def _look(self) -> dict[str, Any]:
        return {"noise": self.np_random.uniform(-1, 1, 2).astype(np.float32), "coin": self.coin}


def make(**more: Any) -> PPO:
    env = SyncVectorEnv([lambda: Anything(WHOLE, spaces.Discrete(3))] * 4)
    return PPO(env, **{**SMALL, "privileged": ("truth",), **more})


def test_only_the_value_depends_on_it() -> None:
    policy, generator = make().policy, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for x in policy.parameters():
            x.add_(0.3 * torch.randn(x.shape, generator=generator))
    cue, start = torch.randn(5, 4, 3, generator=generator), torch.zeros(5, 4, dtype=torch.bool)
    outs = [
        policy.unroll({"cue": cue, "truth": torch.full((5, 4, 2), bit)}, policy.initial_state(4), start)
        for bit in (0, 1)
    ]
    logits = [out.distribution.log_prob(torch.zeros(5, 4, 1, dtype=torch.int64)) for out in outs]
    assert torch.equal(*logits)
    assert not torch.allclose(outs[0].value, outs[1].value)
    blind = policy.unroll({"cue": cue}, policy.initial_state(4), start)
    assert torch.equal(blind.distribution.log_prob(torch.zeros(5, 4, 1, dtype=torch.int64)), logits[0])
    assert bool(blind.value.isnan().all())  # there is none, and nothing can take it for one
    assert [len(part) for part in blind.state] == [len(part) for part in outs[0].state]


def test_acting_training_and_a_resumed_run_agree(tmp_path: Path) -> None:
    agent = make(normalize_observation=True, previous_action=True)
    assert verify_consistency(agent, steps=32) < 1e-5
    agent.learn(128)
    assert verify_consistency(agent, steps=32) < 1e-5
    agent.save(tmp_path / "run")
    other = make(normalize_observation=True, previous_action=True)
    other.resume(tmp_path / "run")
    assert load(tmp_path / "run").config.privileged == ("truth",)
    for name, x in agent.policy.state_dict().items():
        assert torch.equal(x, other.policy.state_dict()[name]), name
    with pytest.raises(ValueError, match="the weights belong to another policy"):
        make(normalize_observation=True, previous_action=True, privileged=()).resume(tmp_path / "run")


def test_it_acts_where_there_is_none_and_does_not_train_there() -> None:
    agent = make()
    cue = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)
    action, state = agent.predict({"cue": cue}, deterministic=True)
    assert np.array_equal(action, agent.predict({"cue": cue, "truth": np.ones((6, 2), np.int8)}, deterministic=True)[0])
    agent.predict({"cue": cue}, state)
    act = agent.actor(Anything(SEEN, spaces.Discrete(3)))
    act.reset(seed=0)
    act.step()
    bare = adapt(SyncVectorEnv([lambda: Anything(SEEN, spaces.Discrete(3))] * 2))
    assert evaluate(agent.policy, bare, episodes=3).returns.shape == (3,)
    with pytest.raises(ValueError, match=r"observation space: the policy expects .*truth"):
        agent.set_env(bare.env)
    with pytest.raises(ValueError, match=r"observation space: the policy expects .*truth"):
        verify_consistency(agent, bare.env)
    with pytest.raises(ValueError, match="observation 'cue' is missing"):
        agent.predict({"truth": np.ones((6, 2), np.int8)})


@pytest.mark.parametrize("value", [False, True])
def test_an_export_needs_none_but_for_the_value(value: bool) -> None:
    policy = make().policy
    vector = adapt(SyncVectorEnv([lambda: Anything(WHOLE, spaces.Discrete(3))] * 2))
    exported: Any = TorchExportPolicy(pack_torch(policy, value=value))
    assert ("observation.truth" in exported.description["inputs"]) == value
    assert largest_difference(policy, exported, vector, steps=20).size < 1e-5
    if not value:
        plain = NumpyPolicy(pack_numpy(policy))
        assert largest_difference(policy, plain, vector, steps=20).size < 1e-5
        bare = adapt(SyncVectorEnv([lambda: Anything(SEEN, spaces.Discrete(3))] * 2))
        assert largest_difference(policy, plain, bare, steps=20).size < 1e-5
        plain.predict({"cue": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    ("space", "privileged", "words"),
    [
        (spaces.Box(-1, 1, (3,)), ("truth",), "privileged: expected a Dict observation with truth in it"),
        (WHOLE, ("thruth",), "no privileged entry of the observation 'thruth'.*truth"),
        (WHOLE, ("cue", "truth"), "nothing is left for the policy to act by"),
        (WHOLE, ("truth", "truth"), "privileged: expected every name once"),
    ],
)
def test_an_entry_that_cannot_be_privileged_is_named(space: Any, privileged: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy(space, spaces.Discrete(2), PolicyConfig(width=8, privileged=privileged))


def test_a_value_that_reads_the_truth_explains_what_the_policy_cannot_see() -> None:
    explained = {}
    for privileged in (("coin",), ()):
        env = SyncVectorEnv([Coin] * 16)
        if not privileged:
            env = SyncVectorEnv([lambda: gym.wrappers.FilterObservation(Coin(), ["noise"])] * 16)
        agent = PPO(
            env, privileged=privileged, encoder="mlp", width=16, layers=1, horizon=8, lr=1e-2, gamma=0.5, epochs=4
        )
        agent.learn(16 * 8 * 16)
        rollout = agent.collector.collect()
        assert rollout is not None
        explained[privileged] = agent.update(rollout)["explained_variance"]
    assert explained[("coin",)] > 0.8
    assert explained[()] < 0.5
