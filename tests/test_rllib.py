"""A policy of rlmin inside RLlib: acting is training, RLlib reads the same actions, and a memory learns what needs one.

RLlib asks for a version of gymnasium of its own, so it has an environment of its own; see docs/howto/rllib.md.
"""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from large import need

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # RLlib's own
    need("ray")
    pytest.importorskip("ray.rllib", reason="RLlib is not installed", exc_type=ImportError)
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.utils.spaces.space_utils import unsquash_action

    from rlmin.interop.rllib import PolicyRLModule

pytestmark = [
    pytest.mark.needs("ray"),
    pytest.mark.filterwarnings("ignore"),  # RLlib's own
]

T, B = 7, 3
SEEN: gym.Space[Any] = spaces.Dict(
    room=spaces.Dict(x=spaces.Box(-2, 2, (2,), np.float32), n=spaces.Discrete(3)), plain=spaces.Box(-1, 1, (3,))
)
ACTIONS: dict[str, gym.Space[Any]] = {
    "choice": spaces.Discrete(4),
    "choices": spaces.MultiDiscrete([2, 5]),
    "bounded": spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32)),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
}


def module_of(action: gym.Space[Any] = ACTIONS["choice"], seen: gym.Space[Any] = SEEN, **config: Any) -> PolicyRLModule:
    torch.manual_seed(0)
    config = {"encoder": "min_gru", "width": 8, "max_seq_len": T, **config}
    spec = RLModuleSpec(module_class=PolicyRLModule, observation_space=seen, action_space=action, model_config=config)
    module: PolicyRLModule = spec.build()
    for x in module.parameters():  # heads begin near zero
        torch.nn.init.normal_(x, 0.0, 0.5)
    return module


def observations() -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    room = {"x": torch.randn(B, T, 2, generator=g), "n": torch.randint(3, (B, T), generator=g)}
    return {"room": room, "plain": torch.rand(B, T, 3, generator=g)}


def at(x: Any, t: slice) -> Any:
    return {name: at(part, t) for name, part in x.items()} if isinstance(x, dict) else x[:, t]


def zero(module: PolicyRLModule) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(x).expand(B, *x.shape) for name, x in module.get_initial_state().items()}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("encoder", ["min_gru", "min_lstm", "gru", "lstm", "attention"])
def test_acting_is_training(encoder: str, action: str) -> None:
    module, seen = module_of(ACTIONS[action], encoder=encoder), observations()
    trained = module.forward_train({Columns.OBS: seen, Columns.STATE_IN: zero(module)})
    state, forgetful, inputs = zero(module), [], []
    for t in range(T):
        now = {Columns.OBS: at(seen, slice(t, t + 1)), Columns.STATE_IN: state}
        forgetful.append(module.forward_exploration(now | {Columns.STATE_IN: zero(module)}))
        found = module.forward_exploration(now)
        state = found[Columns.STATE_OUT]
        inputs.append(found[Columns.ACTION_DIST_INPUTS])
    wanted = trained[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(torch.cat(inputs, 1), wanted, rtol=1e-5, atol=1e-5)
    lost = torch.cat([x[Columns.ACTION_DIST_INPUTS] for x in forgetful], 1)
    assert (lost - wanted).abs().max() > 1e-2, "without the state it is another policy"
    for name, x in trained[Columns.STATE_OUT].items():
        torch.testing.assert_close(state[name], x, rtol=1e-5, atol=1e-5)
    values = module.compute_values({Columns.OBS: seen, Columns.STATE_IN: zero(module)})
    torch.testing.assert_close(trained[Columns.EMBEDDINGS], values)
    assert values.shape == (B, T) and module.compute_values({}, embeddings=values) is values
    assert module.get_train_action_dist_cls().from_logits(wanted).sample().shape[:2] == (B, T)


def test_zeros_behind_the_end_of_a_sequence_change_nothing_before_it() -> None:
    module, seen = module_of(), observations()
    padded = {"room": {name: x.clone() for name, x in seen["room"].items()}, "plain": seen["plain"].clone()}
    for x in (*padded["room"].values(), padded["plain"]):
        x[:, 4:] = 0
    whole, cut = (
        module.forward_train({Columns.OBS: x, Columns.STATE_IN: zero(module)})[Columns.ACTION_DIST_INPUTS]
        for x in (seen, padded)
    )
    torch.testing.assert_close(whole[:, :4], cut[:, :4])
    assert not torch.equal(whole[:, 4:], cut[:, 4:])


def test_without_a_memory_there_is_no_time() -> None:
    module, seen = module_of(encoder="mlp", conv=0), at(observations(), slice(0, 1))
    flat = {"room": {name: x[:, 0] for name, x in seen["room"].items()}, "plain": seen["plain"][:, 0]}
    assert not module.is_stateful()
    found = module.forward_train({Columns.OBS: flat})
    assert found[Columns.ACTION_DIST_INPUTS].shape == (B, 4) and found[Columns.EMBEDDINGS].shape == (B,)


@pytest.mark.parametrize("action", ["bounded", "unbounded"])
def test_rllib_sends_the_action_to_the_environment_that_rlmin_would(action: str) -> None:
    module = module_of(ACTIONS[action])
    raw = torch.tensor([[0.3, -0.8], [1.7, 0.1]])
    sent = [unsquash_action(x, ACTIONS[action]) for x in raw.numpy()]
    np.testing.assert_allclose(sent, module.policy.action_head.to_env(raw), rtol=1e-6)


@pytest.mark.parametrize(
    ("action", "config", "message"),
    [
        (spaces.Discrete(3, start=1), {}, "counts from 0"),
        (
            spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32)),
            {},
            "bounded everywhere or nowhere",
        ),
        (spaces.Box(-1, 1, (2, 2)), {}, "a Box of one axis"),
        (spaces.Box(-1, 1, (2,)), {"squash": True}, "train without squash"),
        (spaces.Discrete(3), {"previous_action": True}, "RLlib does not carry it"),
        (spaces.Discrete(3), {"max_seq_len": None, "wdith": 3}, "wdith"),
    ],
)
def test_what_rllib_reads_in_another_way_is_refused(action: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        module_of(action, **config)
    with pytest.raises(ValueError, match="a memory needs max_seq_len"):
        RLModuleSpec(
            module_class=PolicyRLModule,
            observation_space=SEEN,
            action_space=spaces.Discrete(2),
            model_config={"encoder": "min_gru"},
        ).build()


def best(encoder: str, iterations: int) -> float:
    """Highest mean return in a T-maze of 5 while RLlib's PPO trains, which may lose it again; stops at 0.9."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    import rlmin.envs

    def make(_: Any) -> gym.Env[Any, Any]:
        rlmin.envs.register()
        return gym.make("rlmin/TMaze-v0", length=5)

    register_env("maze", make)
    config = (
        PPOConfig()
        .environment("maze")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(train_batch_size_per_learner=1024, minibatch_size=256, num_epochs=6, lr=3e-3, entropy_coeff=0.01)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=PolicyRLModule, model_config={"encoder": encoder, "width": 32, "max_seq_len": 16}
            )
        )
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    try:
        found = -1.0
        for _ in range(iterations):
            found = max(found, float(algorithm.train()["env_runners"]["episode_return_mean"]))
            if found > 0.9:
                break
        return found
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_rllib_learns_a_task_of_memory_with_a_memory_alone() -> None:
    assert best("min_gru", 40) > 0.9
    assert best("mlp", 20) < 0.7
