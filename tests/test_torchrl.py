"""Policies and memories of rlmin inside TorchRL's collectors and losses, with the real package.

What a collector recorded step by step is what one pass over the batch says, with episode ends inside; a pass that is
not told of them says something else.
"""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from large import need
from tensordict.nn import TensorDictModule, TensorDictSequential

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of its own deprecated classes as it is imported
    need("torchrl")
    from torchrl.collectors import Collector
    from torchrl.envs import Compose, GymWrapper, InitTracker, SerialEnv, TransformedEnv
    from torchrl.modules import ProbabilisticActor, set_recurrent_mode
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

from rlmin.encoders import CELLS, Stack
from rlmin.interop.torchrl import EncoderModule, PolicyModule
from rlmin.policy import Policy, PolicyConfig

T, B, D, H, A = 40, 3, 5, 6, 4

pytestmark = [
    pytest.mark.needs("torchrl"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torchrl", "ignore::DeprecationWarning:tensordict"),
]


class Game(gym.Env[Any, Any]):
    """Episodes of 2 to 8 steps, some of them cut short; nested observations."""

    observation_space = spaces.Dict(
        sensors=spaces.Dict(left=spaces.Box(-4, 4, (D,)), right=spaces.Box(-4, 4, (2,), np.float64)),
        n=spaces.Discrete(3),
    )

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 9))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        over = self.left == 0
        cut = over and bool(self.np_random.random() < 0.5)
        return self._seen(), float(np.sum(action)), over and not cut, cut, {}

    def _seen(self) -> Any:
        draw = self.np_random.normal
        sensors = {"left": draw(size=D).clip(-4, 4).astype(np.float32), "right": draw(size=2).clip(-4, 4)}
        return {"sensors": sensors, "n": self.np_random.integers(3)}


ACTIONS: dict[str, gym.Space[Any]] = {
    "choice": spaces.Discrete(A),
    "point": spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([5.0, 1.0], np.float32)),
}


def random_weights(module: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    return module.eval()


def policy_of(action: str, **settings: Any) -> Policy:
    policy: Policy = random_weights(Policy(Game.observation_space, ACTIONS[action], PolicyConfig(width=H, **settings)))
    return policy


def env_of(action: str, module: Any, *, rows: int = B, one_hot: bool = True) -> Any:
    def one() -> Any:
        return GymWrapper(Game(ACTIONS[action]), categorical_action_encoding=not one_hot)

    inside = SerialEnv(rows, one) if rows > 1 else one()
    env = TransformedEnv(inside, Compose(InitTracker(), module.make_tensordict_primer()))
    env.set_seed(0)
    return env


def batches(env: Any, actor: Any, *, rows: int = B, count: int = 2) -> Iterator[Any]:
    collector = Collector(env, actor, frames_per_batch=rows * T, total_frames=count * rows * T)
    try:
        yield from collector
    finally:
        collector.shutdown()


def again(actor: Any, batch: Any) -> torch.Tensor:
    """Log-probabilities of the batch's actions, in one pass over it."""
    seen = batch.select(*actor.module[0].in_keys)
    with torch.no_grad(), set_recurrent_mode(True):
        found: torch.Tensor = actor.get_dist(seen).log_prob(batch["action"])
    return found


@pytest.mark.parametrize(
    ("action", "encoder", "rows", "one_hot"),
    [
        ("choice", "min_gru", B, True),
        ("choice", "attention", B, False),
        ("choice", "lstm", 1, True),
        ("point", "min_lstm", B, True),
        ("point", "aaren", 1, True),
    ],
)
def test_what_was_collected_step_by_step_is_what_one_pass_says(
    action: str, encoder: Any, rows: int, one_hot: bool
) -> None:
    options = {name: x for name, x in {"heads": 2, "context": 8}.items() if name in CELLS[encoder].option_names}
    module = PolicyModule(policy_of(action, encoder=encoder, encoder_options=options))
    env = env_of(action, module, rows=rows, one_hot=one_hot)
    actor = module.actor(env.action_spec)
    for batch in batches(env, actor, rows=rows):  # the second begins in the middle of episodes
        assert batch.shape == ((rows, T) if rows > 1 else (T,))
        assert 3 < int(batch["is_init"].sum()) < batch.numel()
        torch.testing.assert_close(again(actor, batch), batch["action_log_prob"], rtol=0, atol=2e-5)
        deaf = batch.clone()
        deaf["is_init"] = torch.zeros_like(deaf["is_init"])
        assert (again(actor, deaf) - batch["action_log_prob"]).abs().max() > 1e-3
        forgetful = batch.clone()
        forgetful["is_init"] = torch.ones_like(forgetful["is_init"])
        assert (again(actor, forgetful) - batch["action_log_prob"]).abs().max() > 1e-3


def test_a_collected_step_is_what_the_policy_itself_says() -> None:
    policy = policy_of("point")
    module = PolicyModule(policy)
    env = env_of("point", module)
    (batch,) = batches(env, module.actor(env.action_spec), count=1)
    row = 1
    leaves = {"sensors.left": ("sensors", "left"), "sensors.right": ("sensors", "right"), "n": "n"}
    seen = {name: batch[key][row] for name, key in leaves.items()}
    seen["n"], seen["sensors.right"] = seen["n"].long().argmax(-1), seen["sensors.right"].float()
    start = batch["is_init"][row]
    out = policy.unroll({name: x.unsqueeze(1) for name, x in seen.items()}, policy.initial_state(1), start)
    point = policy.action_head.from_env(batch["action"][row]).unsqueeze(1)
    scale: Any = policy.action_head.scale
    expected = out.distribution.log_prob(point).squeeze(1) - scale.log().sum()  # a density in the env's unit
    torch.testing.assert_close(batch["action_log_prob"][row], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(batch["state_value"][row], out.value, rtol=0, atol=1e-5)


def test_ppo_of_torchrl_makes_updates_and_the_collector_follows() -> None:
    policy = policy_of("choice")
    module = PolicyModule(policy)
    env, critic = env_of("choice", module), module.critic()
    actor = module.actor(env.action_spec)
    loss = ClipPPOLoss(actor, critic, normalize_advantage=True)
    advantage = GAE(gamma=0.9, lmbda=0.8, value_network=None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = [x.detach().clone() for x in policy.parameters()]
    for batch in batches(env, actor):
        reached = batch["next"].select(*critic.in_keys)  # with the memory the policy then had
        with torch.no_grad():
            batch["next", "state_value"] = critic(reached)["state_value"]
        goes_on = ~batch["next", "done"][:, :-1]
        torch.testing.assert_close(
            batch["next", "state_value"][:, :-1][goes_on], batch["state_value"][:, 1:][goes_on], rtol=0, atol=1e-5
        )
        assert not torch.allclose(batch["next", "state_value"][:, :-1], batch["state_value"][:, 1:], atol=1e-3)
        advantage(batch)
        with set_recurrent_mode(True):
            found = loss(batch)
        assert abs(float(found["max_ratio"]) - 1) < 1e-4, "the weights that collected are those that are trained"
        optimizer.zero_grad()
        (found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]).backward()
        assert all(x.grad is not None and bool(torch.isfinite(x.grad).all()) for x in policy.parameters())
        optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_a_memory_alone_is_a_module_too() -> None:
    stack: Stack = random_weights(Stack(D, H, mixer="min_gru", layers=2))
    memory = EncoderModule(stack, in_key=("sensors", "left"), out_key="embed")
    head = TensorDictModule(torch.nn.Linear(H, A), in_keys=["embed"], out_keys=["logits"])
    env = env_of("choice", memory)
    actor = ProbabilisticActor(
        TensorDictSequential(memory, head),
        in_keys=["logits"],
        distribution_class=torch.distributions.OneHotCategorical,
        return_log_prob=True,
    )
    (batch,) = batches(env, actor, count=1)
    seen = batch.select(*memory.in_keys)
    with torch.no_grad(), set_recurrent_mode(True):
        passed = memory(seen)["embed"]
    torch.testing.assert_close(passed, batch["embed"], rtol=0, atol=1e-5)
    x, start = batch["sensors", "left"].transpose(0, 1), batch["is_init"].squeeze(-1).T
    torch.testing.assert_close(passed.transpose(0, 1), stack(x, stack.initial_state(B), start)[0], rtol=0, atol=1e-6)
    assert memory.in_keys == [("sensors", "left"), "is_init", *memory.state_keys]
    assert memory.out_keys == ["embed", *(("next", *key) for key in memory.state_keys)]


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="previous_action=True: TorchRL does not carry it"):
        PolicyModule(policy_of("choice", previous_action=True))
    for action in (spaces.MultiDiscrete([2, 3]), spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2, 2))):
        with pytest.raises(ValueError, match="expected a Discrete that counts from 0, or a Box of one axis"):
            PolicyModule(Policy(Game.observation_space, action, PolicyConfig(width=H)))
    with pytest.raises(ValueError, match=r"observation '0': part of a Tuple"):
        PolicyModule(Policy(spaces.Tuple([spaces.Discrete(2)]), ACTIONS["choice"], PolicyConfig(width=H)))
    with pytest.raises(ValueError, match="no output 'logit'; did you mean 'logits'"):
        PolicyModule(policy_of("choice"), outputs=["logit"])
    module = PolicyModule(policy_of("choice"))
    bare = TransformedEnv(GymWrapper(Game(ACTIONS["choice"])), InitTracker())
    with pytest.raises(ValueError, match=r"has no \('recurrent_state', '0'\); append InitTracker\(\) and make_tensor"):
        module(bare.reset())
    with set_recurrent_mode(True), pytest.raises(ValueError, match=r"a sequence needs a TensorDict of batch"):
        module(env_of("choice", module, rows=1).reset())
    seen = env_of("choice", module).reset()
    with pytest.raises(ValueError, match=r"the TensorDict has no \('sensors', 'right'\)$"):
        module(seen.exclude(("sensors", "right")))
    seen["sensors", "left"] = torch.zeros(B, D + 1)
    with pytest.raises(ValueError, match=r"observation 'sensors\.left': the space declares \[B=3, 5\] float32, got"):
        module(seen)
    monkeypatch.setitem(sys.modules, "torchrl.modules", None)
    with pytest.raises(ImportError, match=r'pip install "rlmin\[torchrl\]"'):
        PolicyModule(policy_of("choice"))
