"""Tokens: a step as one input of the memory or as three, under the laws of every policy."""

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.policy import Policy, PolicyConfig, PolicyOutput
from rlmin.policy.heads import Gaussian
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD
from rlmin.types import Observation, State, map_state
from rlmin.wrappers.return_to_go import RETURN_TO_GO

T, B, D, A, H = 7, 3, 4, 2, 6
SPACE = spaces.Dict(
    {"observation": spaces.Box(-1, 1, (D,)), RETURN_TO_GO: spaces.Box(-float("inf"), float("inf"), (1,))}
)
ENCODERS = ["min_gru", "min_lstm", "gru", "lstm"]


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(encoder: Any = "min_gru", space: Any = SPACE, **settings: Any) -> Policy:
    """A float64 policy whose every weight is random."""
    settings = {"tokens": "triple", "previous_action": True, "previous_reward": True, "width": H, **settings}
    policy = Policy(space, spaces.Box(-1, 1, (A,)), PolicyConfig(encoder=encoder, **settings)).double()
    for i, parameter in enumerate(policy.parameters()):
        parameter.data = 0.5 * random(*parameter.shape, seed=100 + i)
    return policy


def batch() -> tuple[Observation, Tensor]:
    observation = {
        "observation": random(T, B, D, seed=1),
        RETURN_TO_GO: random(T, B, 1, seed=2),
        PREVIOUS_ACTION: random(T, B, A, seed=3),
        PREVIOUS_REWARD: random(T, B, seed=4),
    }
    start = torch.zeros(T, B, dtype=torch.bool)
    for row, steps in enumerate([[0, 5], [3, 4], [T - 1]]):
        start[steps, row] = True
    return observation, start


def memory(policy: Policy) -> State:
    return map_state(lambda z: random(*z.shape, seed=z.dim()).requires_grad_(), policy.initial_state(B))


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def numbers(outs: list[PolicyOutput]) -> list[Tensor]:
    """Means and values [T, B, ...] of all parts, and the last memory."""
    means = [out.distribution.mean for out in outs if isinstance(out.distribution, Gaussian)]
    return [torch.cat(means), torch.cat([out.value for out in outs]), *leaves(outs[-1].state)]


def gradients(outputs: list[Tensor], policy: Policy, state: State) -> tuple[Tensor, ...]:
    total = torch.stack([(x * torch.arange(1.0, x.numel() + 1).view(x.shape).cos()).sum() for x in outputs]).sum()
    wrt = [*policy.parameters(), *leaves(state)]
    return torch.autograd.grad(total, wrt, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_steps_give_what_one_pass_and_any_split_give_values_and_gradients(encoder: str) -> None:
    policy = make(encoder)
    (observation, start), state = batch(), memory(policy)
    want = numbers([policy.unroll(observation, state, start)])
    for cuts in (range(1, T), (2,), (1, 5)):
        outs, carried, first = list[PolicyOutput](), state, 0
        for last in (*cuts, T):
            part = {name: x[first:last] for name, x in observation.items()}
            outs.append(policy.unroll(part, carried, start[first:last]))
            carried, first = outs[-1].state, last
        got = numbers(outs)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradients(got, policy, state), gradients(want, policy, state))
        want = numbers([policy.unroll(observation, state, start)])
    carried, means = state, []
    for t in range(T):
        out = policy.step({name: x[t] for name, x in observation.items()}, carried, start[t])
        carried = out.state
        means.append(numbers([out])[0].view(B, A))
    torch.testing.assert_close(torch.stack(means), want[0])
    torch.testing.assert_close(leaves(carried), want[2:])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_reset_wipes_before_the_first_token_of_its_step(encoder: str) -> None:
    policy = make(encoder)
    (observation, start), zeros = batch(), policy.initial_state(B)
    whole = numbers([policy.unroll(observation, memory(policy), start)])[0]
    born = {name: x[5:] for name, x in observation.items()}
    alone = torch.zeros(T - 5, B, dtype=torch.bool)
    alone[0] = True
    alone[1:] = start[6:]
    torch.testing.assert_close(numbers([policy.unroll(born, zeros, alone)])[0][:, 0], whole[5:, 0])
    late = numbers([policy.unroll(observation, memory(policy), start.roll(1, 0))])[0]
    assert not torch.allclose(late[5, 0], whole[5, 0]), "one step late: the arm that must fail"


def test_features_are_read_after_the_observation_and_know_every_token_of_their_step() -> None:
    policy = make()
    (observation, start), state = batch(), memory(policy)
    want = numbers([policy.unroll(observation, state, start)])[0]
    for name, leaf in observation.items():
        changed = leaf.clone()
        changed[3:, 0] += 1
        got = numbers([policy.unroll({**observation, name: changed}, state, start)])[0]
        assert torch.equal(got[:3], want[:3]) and torch.equal(got[:, 1:], want[:, 1:]), "neither past nor neighbours"
        assert not torch.allclose(got[3, 0], want[3, 0]), f"{name} counts at once"


def test_a_token_is_three_steps_of_memory_and_those_without_input_are_left_out() -> None:
    for settings, count in (
        ({}, 3),
        ({"previous_action": False}, 3),
        ({"previous_reward": False}, 3),
        ({"previous_action": False, "previous_reward": False}, 2),
    ):
        policy = make(**settings)
        (observation, start), state = batch(), policy.initial_state(B)
        seen = list[int]()
        handle = policy.trunks[0].encoder.register_forward_hook(  # type: ignore[union-attr]
            lambda module, inputs, output, seen=seen: seen.append(len(inputs[0]))
        )
        policy.unroll(observation, state, start)
        handle.remove()
        assert seen == [count * T]
    plain = make(space=spaces.Box(-1, 1, (D,)))
    out = plain.unroll(batch()[0], plain.initial_state(B), batch()[1])
    assert out.value.shape == (T, B)


def test_three_tokens_are_another_policy_than_their_sum() -> None:
    (observation, start), fused, triple = batch(), make(tokens="fused"), make()
    one, other = (policy.unroll(observation, policy.initial_state(B), start).value for policy in (fused, triple))
    assert not torch.allclose(one, other)


def test_the_normaliser_reaches_every_token_and_leaves_what_is_not_given() -> None:
    policy = make(normalize_observation=True)
    (observation, start), state = batch(), memory(policy)
    before = numbers([policy.unroll(observation, state, start)])[0]
    policy.update_normalizer({"observation": 5 + observation["observation"]}, ~start)
    after = numbers([policy.unroll(observation, state, start)])[0]
    assert not torch.allclose(before, after)
    kept = policy.state_dict()
    assert [float(x) for name, x in kept.items() if name.endswith("norm.count")] == [int((~start).sum())]
    assert [float(x) for name, x in kept.items() if name.endswith("norm.high")] == [float("inf")], "the return-to-go"


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens 'tripel'; did you mean 'triple'"):
        PolicyConfig(tokens="tripel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokens='triple' needs a memory; encoder='mlp' sees"):
        PolicyConfig(tokens="triple", encoder="mlp")
    taken = spaces.Dict({"observation": spaces.Box(-1, 1, (D,)), PREVIOUS_ACTION: spaces.Box(-1, 1, (A,))})
    with pytest.raises(ValueError, match="previous_action=True, but the environment's own observation has a leaf"):
        make(space=taken)
