"""Dropout is on the updates of the residual stream, in training alone, and nothing where it is zero."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rlmin import PPO, verify_consistency
from rlmin.encoders import Stack
from rlmin.policy import Policy, PolicyConfig

T, B, H = 7, 3, 16
never = torch.zeros(T, B, dtype=torch.bool)


def make(dropout: float, **options: Any) -> Stack:
    torch.manual_seed(0)
    return Stack(H, H, dropout=dropout, **options)


def run(stack: Stack, seed: int = 1) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Values, and gradients of the weights."""
    torch.manual_seed(seed)
    y, _ = stack(torch.linspace(-1, 1, T * B * H).view(T, B, H).sin(), stack.initial_state(B), never)
    return y.detach(), torch.autograd.grad(y.square().sum(), list(stack.parameters()))


@pytest.mark.parametrize("mixer", ["min_gru", "attention", "aaren"])
def test_without_training_or_without_dropout_nothing_changes(mixer: str) -> None:
    plain, dropping = make(0.0, mixer=mixer), make(0.5, mixer=mixer)
    want = run(plain.train())
    for same in (run(plain.eval()), run(dropping.eval())):
        torch.testing.assert_close(same, want, rtol=0, atol=0)
    assert not torch.allclose(run(dropping.train())[0], want[0])


@pytest.mark.parametrize("mlp", [2, 0])
def test_what_is_dropped_is_an_update_and_what_is_kept_makes_up_for_it(mlp: int) -> None:
    stack = make(0.25, layers=1, conv=0, norm="none", mixer="mlp", mlp=mlp)
    block = stack.encoders()[0]
    x = torch.randn(4000, 1, H)
    start = torch.zeros(4000, 1, dtype=torch.bool)
    modules: list[nn.Module] = [block.get_submodule("mixer"), *([block.get_submodule("mlp")] if mlp else [])]
    for kept in modules:
        others = [part for part in modules if part is not kept]
        made = make(0.25, layers=1, conv=0, norm="none", mixer="mlp", mlp=mlp)
        made.load_state_dict(stack.state_dict())
        with torch.no_grad():
            for other in others:
                name = "mixer" if other is modules[0] else "mlp"
                for weight in made.encoders()[0].get_submodule(name).parameters():
                    weight.zero_()
        exact = made.eval()(x, (((), ()),), start)[0] - x
        ratio = (made.train()(x, (((), ()),), start)[0] - x) / exact
        dropped = (ratio.abs() < 1e-4) | (exact.abs() < 1e-3)
        assert dropped[exact.abs() >= 1e-3].float().mean().item() == pytest.approx(0.25, abs=0.01)
        torch.testing.assert_close(ratio[~dropped], torch.full_like(ratio[~dropped], 1 / 0.75), rtol=1e-2, atol=1e-2)


def test_a_step_drops_in_training_however_it_is_called() -> None:
    stack, space = make(0.5), spaces.Box(-1, 1, (4,))
    policy = Policy(space, spaces.Discrete(3), PolicyConfig(width=8, dropout=0.5))
    nn.init.ones_(policy.value_head.projection.weight)  # before training it is 0, whatever is dropped
    x, seen = torch.ones(B, H), {"observation": torch.ones(B, 4)}
    steps: list[tuple[nn.Module, Callable[[], Tensor]]] = [
        (stack, lambda: stack.step(x, stack.initial_state(B), never[0])[0]),
        (policy, lambda: policy.step(seen, policy.initial_state(B), never[0]).value),
    ]
    for module, step in steps:
        results = []
        for training in (False, True, False):
            module.train(training)
            with torch.no_grad():
                results.append(step())
        exact, dropped, again = results
        assert torch.equal(exact, again) and not torch.allclose(exact, dropped)


def test_an_agent_that_drops_in_training_acts_and_is_checked_without() -> None:
    agent = PPO("rlmin/TMaze-v0", width=8, num_envs=3, horizon=16, dropout=0.5, env_kwargs={"length": 4}, seed=0)
    assert verify_consistency(agent, steps=32) < 1e-5
    agent.learn(96)
    assert not agent.policy.training
    agent.policy.train()
    with pytest.raises(AssertionError, match="acting and training disagree"):
        verify_consistency(agent, steps=32)


@pytest.mark.parametrize("wrong", [-0.1, 1.0])
def test_a_share_outside_zero_to_one_is_an_error(wrong: float) -> None:
    with pytest.raises(ValueError, match="dropout: expected a number from 0 to below 1, got"):
        make(wrong)
    with pytest.raises(ValueError, match=f"dropout: expected a number from 0 to below 1, got {wrong}"):
        PolicyConfig(dropout=wrong)
