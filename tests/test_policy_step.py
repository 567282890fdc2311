"""A policy's step in one call gives what its modules give one by one, and is not taken where these must be called."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from one_call import CHANGES, check_fallback, optimise
from torch import Tensor, nn

from rlmin.kernels.step import product
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.heads import Distribution
from rlmin.types import Observation, State, map_state

T, B, D, H = 4, 5, 3, 19
DOUBLE, SINGLE = 1e-11, 1e-6

NUMBERS = spaces.Box(-1, 1, (D,), np.float32)
FOUR = spaces.Discrete(4)
SPACES: dict[str, tuple[gym.Space[Any], gym.Space[Any], dict[str, Any]]] = {
    "numbers": (NUMBERS, FOUR, {}),
    "min_lstm": (NUMBERS, FOUR, {"encoder": "min_lstm", "layers": 1, "mlp": 0}),
    "one number, one action": (spaces.Box(-1, 1, (), np.float64), spaces.Discrete(1), {"conv": 0}),
    "a table of numbers": (spaces.Box(-1, 1, (2, D)), spaces.Box(-2, 2, (2,)), {"normalize_observation": True}),
    "integers": (spaces.Box(0, 7, (D,), np.int32), spaces.MultiDiscrete([2, 6]), {}),
    "a choice": (spaces.Discrete(6), spaces.MultiBinary(3), {}),
    "two leaves": (spaces.Dict({"a": NUMBERS, "b": FOUR}), spaces.Box(-1, 1, (1,)), {}),
    "what came before": (NUMBERS, FOUR, {"previous_action": True, "previous_reward": True}),
}  # fmt: skip
every_space = pytest.mark.parametrize("name", SPACES)


@pytest.fixture(autouse=True)
def the_fast_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLMIN_KERNEL", raising=False)
    if product.address(torch.float32) is None:
        pytest.skip("torch's libraries show no matrix product here")


def make(name: str = "numbers", dtype: torch.dtype = torch.float64, **settings: Any) -> Policy:
    """One whose every weight is random, so that none can be without effect."""
    observation, action, options = SPACES[name]
    torch.manual_seed(0)
    policy = Policy(observation, action, PolicyConfig(**{"width": H, **options, **settings})).to(dtype).eval()
    draws = torch.Generator().manual_seed(0)
    for weight in policy.parameters():
        weight.data += 0.2 * torch.randn(weight.shape, generator=draws, dtype=dtype)
    return policy


def observations(policy: Policy) -> list[Observation]:
    """Of T steps."""
    policy.observation_space.seed(3)
    policy.action_space.seed(3)
    found = []
    for _ in range(T):
        rows: list[Any] = [policy.observation_space.sample() for _ in range(B)]
        leaves = {k: [row[k] for row in rows] for k in rows[0]} if isinstance(rows[0], dict) else {"observation": rows}
        seen = {k: torch.as_tensor(np.stack(leaf)) for k, leaf in leaves.items()}
        actions: list[Any] = [policy.action_space.sample() for _ in rows]
        action = policy.action_head.from_env(torch.as_tensor(np.stack(actions)))
        found.append(policy.with_previous(seen, action, torch.linspace(-1, 1, B)))
    return found


def resets() -> Tensor:
    return torch.arange(T * B).view(T, B) % 3 == 1


def parameters(distribution: Distribution) -> Tensor:
    found = vars(distribution).get("logits", vars(distribution).get("mean"))
    assert isinstance(found, Tensor)
    return found


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def played(policy: Policy, start: Tensor | None = None, mask: Tensor | None = None) -> list[Tensor]:
    """What T steps say, which actions are drawn, and the memory after the last."""
    start, draws, said, state = resets() if start is None else start, torch.Generator(), [], policy.initial_state(B)
    draws.manual_seed(1)
    for t, observation in enumerate(observations(policy)):
        distribution, value, state = policy.step(observation, state, start[t], mask)
        said += [parameters(distribution), distribution.sample(draws).double(), value]
    return said + leaves(state)


def taken(policy: Policy) -> bool:
    known = policy._in_one_call._known
    return known is not None and known.plan.usable


def in_one_call(policy: Policy, **named: Any) -> list[Tensor]:
    with torch.no_grad():
        found = played(policy, **named)
    assert taken(policy)
    return found


def one_by_one(policy: Policy, **named: Any) -> list[Tensor]:
    """What the modules give, the stack's among them."""
    stacks: list[Any] = [trunk.encoder for trunk in policy._each_trunk()]
    owners: list[Any] = [policy, *stacks]
    usual = [owner._in_one_call for owner in owners]
    for owner in owners:
        owner._in_one_call = lambda *_: None
    with torch.no_grad():
        found = played(policy, **named)
    for owner, call in zip(owners, usual, strict=True):
        owner._in_one_call = call
    return found


def assert_same(got: list[Tensor], want: list[Tensor], tolerance: float = DOUBLE) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def differ(got: list[Tensor], want: list[Tensor]) -> bool:
    return not all(torch.allclose(g, w, rtol=1e-3, atol=1e-3) for g, w in zip(got, want, strict=True))


@every_space
def test_one_call_gives_what_the_modules_give(name: str) -> None:
    policy = make(name)
    want = one_by_one(policy)
    assert_same(in_one_call(policy), want)
    assert differ(in_one_call(policy, start=~resets()), want)


@pytest.mark.parametrize("name", ["numbers", "integers"])
def test_under_a_mask(name: str) -> None:
    policy = make(name)
    mask = torch.arange(B * policy.action_head.mask_size).view(B, -1) % 3 != 1
    want = one_by_one(policy, mask=mask)
    assert_same(in_one_call(policy, mask=mask), want)
    assert differ(in_one_call(policy), want)


def test_in_float32_they_agree_within_a_millionth_and_so_do_the_actions() -> None:
    policy = Policy(NUMBERS, FOUR, PolicyConfig(width=H)).eval()
    want = one_by_one(policy)
    assert_same(in_one_call(policy), want, SINGLE)
    assert differ(in_one_call(policy, start=~resets()), want)


def test_what_went_in_is_not_written_to_and_what_came_out_stays() -> None:
    policy = make()
    seen, start = observations(policy), resets()
    before = map_state(torch.ones_like, policy.initial_state(B))
    with torch.no_grad():
        first = policy.step(seen[0], before, start[0])
        said = [parameters(first.distribution), first.value, *leaves(first.state)]
        copies = [x.clone() for x in said]
        second = policy.step(seen[1], first.state, start[1])
    assert taken(policy)
    assert all((x == 1).all() for x in leaves(before))
    torch.testing.assert_close(said, copies, rtol=0, atol=0)
    assert not torch.equal(second.value, first.value)


# -- the weights that count are those of now --------------------------------------------------------------------------


def another_head(policy: Policy) -> Policy:
    policy.action_head.projection = nn.Linear(H, 4, dtype=torch.float64)
    return policy


def another_critic(policy: Policy) -> Policy:
    policy.value_head = make().value_head
    policy.value_head.projection.bias.data += 1
    return policy


def another_front(policy: Policy) -> Policy:
    numbers: Any = policy._each_trunk()[0].inputs.embed[0]  # type: ignore[index]
    numbers.net[0] = nn.Linear(D, H, dtype=torch.float64)
    return policy


def another_trunk(policy: Policy) -> Policy:
    policy.trunks[0] = optimise(make()).trunks[0]
    return policy


EXCHANGES = (another_head, another_critic, another_front, another_trunk)


@pytest.mark.parametrize("change", [*CHANGES, *EXCHANGES])
def test_weights_that_change_are_seen(change: Callable[[Policy], Policy]) -> None:
    policy = make()
    before = in_one_call(policy)
    after = change(policy)
    got = in_one_call(after)
    assert_same(got, one_by_one(after))
    assert differ(got, before)


def test_statistics_that_change_are_seen() -> None:
    policy = make("a table of numbers")
    before = in_one_call(policy)
    policy.update_normalizer({"observation": 3 + torch.ones(T, B, 2, D)}, resets())
    assert_same(in_one_call(policy), one_by_one(policy))
    assert differ(in_one_call(policy), before)


def test_a_copy_does_not_share_what_its_original_changes() -> None:
    policy = make()
    before = in_one_call(policy)
    copy = deepcopy(policy)
    optimise(policy)
    assert_same(in_one_call(copy), before)
    assert differ(in_one_call(policy), before)


# -- where the modules are called -------------------------------------------------------------------------------------


class Doubled(nn.Linear):
    """Not the Linear that the call knows."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def of_another_class(policy: Policy) -> None:
    policy.action_head.projection = Doubled(H, 4, dtype=torch.float64)


def without_bias(policy: Policy) -> None:
    policy.action_head.projection = nn.Linear(H, 4, bias=False, dtype=torch.float64)


def other_activation(policy: Policy) -> None:
    numbers: Any = policy._each_trunk()[0].inputs.embed[0]  # type: ignore[index]
    numbers.net[1] = nn.Tanh()


@pytest.mark.parametrize("change", [of_another_class, without_bias, other_activation])
@pytest.mark.parametrize("seen", [False, True], ids=["before the first step", "after it"])
def test_what_the_call_does_not_know_is_called(change: Callable[[Policy], None], seen: bool) -> None:
    policy = make()
    if seen:
        in_one_call(policy)
    change(policy)
    with torch.no_grad():
        got = played(policy)
    assert not taken(policy)
    assert_same(got, one_by_one(policy))
    assert differ(got, in_one_call(make()))


HOOKED: dict[str, Callable[[Policy], Any]] = {
    "inputs": lambda policy: policy.trunks[0].inputs,
    "numbers": lambda policy: policy.trunks[0].inputs.embed[0],  # type: ignore[union-attr,index]
    "first layer": lambda policy: policy.trunks[0].inputs.embed[0].net[0],  # type: ignore[union-attr,index]
    "activation": lambda policy: policy.trunks[0].inputs.embed[0].net[1],  # type: ignore[union-attr,index]
    "value head": lambda policy: policy.value_head,
    "projection": lambda policy: policy.action_head.projection,
}


@pytest.mark.parametrize("place", HOOKED)
def test_hooks_are_called(place: str) -> None:
    policy = make()
    before = in_one_call(policy)
    handle = HOOKED[place](policy).register_forward_hook(lambda module, inputs, output: -output)
    with torch.no_grad():
        got = played(policy)
    assert_same(got, one_by_one(policy))
    assert differ(got, before)
    handle.remove()
    assert_same(in_one_call(policy), before)


@pytest.mark.parametrize("settings", [{"encoder": "gru"}, {"encoder": "mlp"}, {"share_memory": False}])
def test_other_memories_are_called(settings: dict[str, Any]) -> None:
    policy = make(**settings)
    with torch.no_grad():
        got = played(policy)
    assert not taken(policy)
    assert_same(got, one_by_one(policy))


def test_with_gradients_or_autocast_or_another_kernel_the_modules_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(dtype=torch.float32)
    seen, before, start = observations(policy)[0], policy.initial_state(B), resets()[0]
    check_fallback(lambda: policy.step(seen, before, start).value, lambda: taken(policy), monkeypatch)


def test_updates_that_are_dropped_are_dropped_in_training_mode_only() -> None:
    policy = make(dropout=0.5)
    without = in_one_call(policy)
    assert_same(in_one_call(make()), without)
    policy.train()
    torch.manual_seed(0)
    with torch.no_grad():
        got = played(policy)
    torch.manual_seed(0)
    assert_same(got, one_by_one(policy))
    assert differ(got, without)


def test_a_step_that_is_compiled_calls_its_modules() -> None:
    policy = make()
    seen, before, start = observations(policy)[0], policy.initial_state(B), resets()[0]
    with torch.no_grad():
        compiled = torch.compile(lambda x: policy.step(x, before, start).value, backend="eager", fullgraph=True)
        got = compiled(seen)
        assert policy._in_one_call._known is None
        torch.testing.assert_close(got, policy.step(seen, before, start).value)
    assert taken(policy)
