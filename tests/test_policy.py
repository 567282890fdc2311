"""The policy: one set of weights run over [T, B] in training and over [B] in acting, with the same numbers.

The laws of the encoders hold for the whole policy, inputs and heads included, whatever its memory, shared or separate,
with and without previous action and reward; on values and on gradients with respect to weights, memory and inputs.
"""

from itertools import product
from typing import Any, get_args

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.policy import EncoderName, Policy, PolicyConfig, PolicyOutput
from rlmin.policy.heads import Categorical, Gaussian
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD
from rlmin.types import Observation, State, map_state

T, B, D, H = 8, 3, 4, 6
OBSERVATION = spaces.Box(-1, 1, (D,))
ACTION = spaces.MultiDiscrete([2, 5])
NAMES: tuple[EncoderName, ...] = get_args(EncoderName)


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(
    encoder: EncoderName, share: bool = True, previous: bool = False, action: Any = ACTION, **other: Any
) -> Policy:
    """A float64 policy whose every weight is random, so that none of them can be without effect."""
    config = PolicyConfig(
        encoder=encoder, share_memory=share, previous_action=previous, previous_reward=previous, width=H, **other
    )
    policy = Policy(OBSERVATION, action, config).double()
    for i, parameter in enumerate(policy.parameters()):
        parameter.data = 0.5 * random(*parameter.shape, seed=100 + i)
    return policy


class Case:
    """A policy with something to read: leaves [T, B, ...], a memory that is not zero, and episodes that start."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.x = random(T, B, D, seed=1).requires_grad_()
        self.observation: Observation = {"observation": self.x}
        if policy.config.previous_action:
            choice = torch.randint(0, 2, (T, B, 2), generator=torch.Generator().manual_seed(2))
            self.observation[PREVIOUS_ACTION] = choice
            self.observation[PREVIOUS_REWARD] = random(T, B, seed=3)
        self.state = map_state(lambda z: random(*z.shape, seed=z.dim()).requires_grad_(), policy.initial_state(B))
        self.start = torch.zeros(T, B, dtype=torch.bool)
        for row, steps in enumerate([[0, 5], [3, 4], [T - 1]]):
            self.start[steps, row] = True
        self.wrt = [self.x, *leaves(self.state), *policy.parameters()]
        self.remembers = policy.config.encoder != "mlp"

    def at(self, times: Any) -> Observation:
        return {name: leaf[times] for name, leaf in self.observation.items()}

    def unroll(self) -> list[Tensor]:
        return flat([self.policy.unroll(self.observation, self.state, self.start)])

    def steps(self, start: Tensor) -> list[Tensor]:
        outs, state = [], self.state
        for t in range(T):
            outs.append(self.policy.step(self.at(t), state, start[t]))
            state = outs[-1].state
        return flat(outs, torch.stack)


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def log_p(out: PolicyOutput) -> Tensor:
    assert isinstance(out.distribution, Categorical)
    return out.distribution.log_p.clamp(min=-1e3)  # of the choice that does not exist: a constant


def flat(outs: list[PolicyOutput], join: Any = torch.cat) -> list[Tensor]:
    """Log-probabilities and values of all parts, and the last memory."""
    return [join([log_p(out) for out in outs]), join([out.value for out in outs]), *leaves(outs[-1].state)]


def gradients(outputs: list[Tensor], wrt: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which every element of `outputs` has a weight of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for x in outputs:
        total = total + (x * torch.arange(1.0, x.numel() + 1, dtype=torch.float64).view(x.shape).cos()).sum()
    return torch.autograd.grad(total, wrt, retain_graph=True, allow_unused=True, materialize_grads=True)


def assert_same(got: list[Tensor], want: list[Tensor], wrt: list[Tensor]) -> None:
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, wrt), gradients(want, wrt))


def differ(got: list[Tensor], want: list[Tensor]) -> bool:
    return not all(torch.allclose(a, b) for a, b in zip(got[:2], want[:2], strict=True))


@pytest.fixture(params=list(product(NAMES, (True, False), (False, True))), ids=lambda p: f"{p[0]}-{p[1]}-{p[2]}")
def case(request: pytest.FixtureRequest) -> Case:
    """Every memory, shared and separate, without and with previous action and reward."""
    encoder, share, previous = request.param
    return Case(make(encoder, share, previous))


def test_steps_give_what_one_pass_gives(case: Case) -> None:
    want = case.unroll()
    assert_same(case.steps(case.start), want, case.wrt)
    if case.remembers or case.policy.config.previous_action:
        assert differ(case.steps(case.start.roll(1, 0)), want)  # every reset one step late


def test_one_pass_gives_what_its_parts_give_with_the_memory_carried(case: Case) -> None:
    want = case.unroll()
    for cuts in ([3], [1, 7]):
        outs, state, first = [], case.state, 0
        for last in (*cuts, T):
            outs.append(case.policy.unroll(case.at(slice(first, last)), state, case.start[first:last]))
            state, first = outs[-1].state, last
        assert_same(flat(outs), want, case.wrt)
    halves = [case.policy.unroll(case.at(slice(a, b)), case.state, case.start[a:b]) for a, b in ((0, 3), (3, T))]
    assert differ(flat(halves), want) == case.remembers  # the memory not carried


def test_a_reset_is_the_same_as_being_born_there(case: Case) -> None:
    policy, never = case.policy, torch.zeros(T, B, dtype=torch.bool)
    for times in ([0], [4], [T - 1], [4, 5]):
        start, born = never.clone(), times[-1]
        start[times, 1] = True
        newborn = never[born:].clone()
        newborn[0] = True  # its previous action and reward are none, too
        zeros = policy.initial_state(B)
        got = row(flat([policy.unroll(case.observation, case.state, start)]), 1, born)
        want = row(flat([policy.unroll(case.at(slice(born, T)), zeros, newborn)]), 1, 0)
        assert_same(got, want, case.wrt)
        if case.remembers:
            assert differ(row(flat([policy.unroll(case.observation, case.state, never)]), 1, born), want)


def row(outputs: list[Tensor], b: int, first: int) -> list[Tensor]:
    """Row `b` of log-probabilities, values and memory, from step `first` on."""
    return [outputs[0][first:, b], outputs[1][first:, b], *(part[b] for part in outputs[2:])]


def test_the_past_never_sees_the_future_and_rows_do_not_mix(case: Case) -> None:
    want = case.unroll()
    for name, leaf in case.observation.items():
        for where in ((slice(5, None),), (slice(None), 1)):
            changed = leaf.detach().clone()
            changed[where] = 1 - changed[where]
            out = case.policy.unroll({**case.observation, name: changed}, case.state, case.start)
            got = flat([out])
            for a, b in zip(got[:2], want[:2], strict=True):
                same = torch.ones(T, B, dtype=torch.bool)
                same[where] = False
                torch.testing.assert_close(a[same], b[same], rtol=0, atol=0)
                assert not torch.allclose(a[~same], b[~same])


@pytest.mark.parametrize(("encoder", "share"), list(product(NAMES, (True, False))))
def test_in_float32_acting_and_training_agree_within_1e_5(encoder: EncoderName, share: bool) -> None:
    case = Case(make(encoder, share, previous=True).float())
    case.observation = {name: x.float() if x.is_floating_point() else x for name, x in case.observation.items()}
    case.state = map_state(lambda x: x.detach().float(), case.state)
    with torch.no_grad():
        for got, want in zip(case.steps(case.start), case.unroll(), strict=True):
            assert got.dtype == torch.float32 and (got - want).abs().max() < 1e-5


# -- one memory or two ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", NAMES)
def test_with_separate_memories_the_critic_does_not_train_the_actors(encoder: EncoderName) -> None:
    for share in (False, True):
        case = Case(make(encoder, share))
        out = case.policy.unroll(case.observation, case.state, case.start)
        trunk = list(case.policy.trunks[0].parameters())
        of_value = torch.autograd.grad(out.value.sum(), trunk, retain_graph=True, allow_unused=True)
        of_action = torch.autograd.grad(log_p(out).square().sum(), trunk)
        assert all(x is not None and x.any() for x in of_action)
        assert all((x is None) != share for x in of_value)


def test_separate_memories_are_a_tuple_of_two_and_start_at_zero() -> None:
    for share, parts in ((True, 1), (False, 2)):
        state = make("min_gru", share).initial_state(B)
        assert isinstance(state, tuple) and len(state) == parts
        assert all(leaf.shape[0] == B and not leaf.any() for leaf in leaves(state))


# -- what goes in and what comes out ----------------------------------------------------------------------------------


def test_a_box_is_answered_with_a_gaussian_and_the_laws_hold_for_it_too() -> None:
    policy = make("min_lstm", previous=True, action=spaces.Box(-2, 2, (3,)))
    case = Case(policy)
    action = random(T, B, 3, seed=5)
    case.observation[PREVIOUS_ACTION] = action.float()
    whole = policy.unroll(case.observation, case.state, case.start)
    assert isinstance(whole.distribution, Gaussian) and whole.value.shape == (T, B)
    state = case.state
    for t in range(T):
        out = policy.step(case.at(t), state, case.start[t])
        state = out.state
        torch.testing.assert_close(out.distribution.log_prob(action[t]), whole.distribution.log_prob(action)[t])


def test_action_masks_reach_the_distribution_of_their_own_step() -> None:
    case = Case(make("gru"))
    mask = torch.rand(T, B, 7, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[..., [0, 2]] = True
    whole = log_p(case.policy.unroll(case.observation, case.state, case.start, mask))
    legal = torch.zeros(T, B, 2, 5, dtype=torch.bool)
    legal[..., 0, :2], legal[..., 1, :] = mask[..., :2], mask[..., 2:]
    assert torch.equal(whole.exp() > 0, legal)
    state = case.state
    for t in range(T):
        out = case.policy.step(case.at(t), state, case.start[t], mask[t])
        state = out.state
        torch.testing.assert_close(log_p(out), whole[t])


def test_previous_action_and_reward_are_added_only_where_switched_on() -> None:
    observation, action, reward = {"observation": torch.zeros(B, D)}, torch.ones(B, 2), torch.ones(B)
    plain = make("mlp").with_previous(observation, action, reward)
    assert plain is observation
    both = make("mlp", previous=True).with_previous(observation, action, reward)
    assert set(both) == {"observation", PREVIOUS_ACTION, PREVIOUS_REWARD} and set(observation) == {"observation"}
    assert both[PREVIOUS_ACTION] is action and both[PREVIOUS_REWARD] is reward
    assert make("mlp").no_action(B).tolist() == [[0, 0]] * B


def test_the_normaliser_of_every_trunk_is_updated() -> None:
    case = Case(make("mlp", share=False, normalize_observation=True))
    before = case.unroll()
    assert not [name for name, _ in case.policy.named_parameters() if "norm.mean" in name]
    case.policy.update_normalizer({"observation": 5 + case.x.detach()}, ~case.start)
    after = case.unroll()
    assert differ(after[:1] * 2, before[:1] * 2) and differ(after[1:2] * 2, before[1:2] * 2)


def test_a_policy_without_width_or_layers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"width: expected a whole number from 1 to .*, got 0"):
        PolicyConfig(width=0)
    with pytest.raises(ValueError, match=r"layers: expected a whole number from 1 to .*, got 0"):
        PolicyConfig(layers=0)


def test_how_long_units_remember_at_first_is_a_setting() -> None:
    space, choice = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    for scales, longest in (((2.0, 256.0), 256), ((3.0, 1000.0), 1000), (None, None)):
        policy = Policy(space, choice, PolicyConfig(encoder="min_gru", width=5, time_scales=scales))
        gates = torch.sigmoid(policy.state_dict()["trunks.0.encoder.blocks.0.mixer.projection.bias"][:5])
        if longest is not None:
            torch.testing.assert_close(1 / gates[-1], torch.tensor(float(longest)))
        else:
            assert (1 / gates).max() < 10
    assert PolicyConfig(time_scales=[2, 9]) == PolicyConfig(time_scales=(2.0, 9.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time_scales: expected 1 < shortest <= longest"):
        PolicyConfig(time_scales=(9.0, 2.0))
