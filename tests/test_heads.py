"""Heads: features to action distributions, checked against torch.distributions, and actions to and from the env.

A masked choice has probability exactly 0, a choice that does not exist is never drawn, and whatever is drawn lies in
the environment's action space.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.policy.heads import ILLEGAL, Categorical, ChoiceHead, Gaussian, ValueHead, action_head

T, B, H = 3, 4, 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*size: int, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=seeded(seed))


def head_of(space: gym.Space[Any], seed: int = 0) -> Any:
    """A float64 head whose weights are large enough to tell choices apart."""
    head = action_head(space, H).double()
    for i, parameter in enumerate(head.parameters()):
        parameter.data = random(*parameter.shape, seed=seed + i)
    return head


SIZES, STARTS = np.array([[2, 3, 4], [5, 2, 7]]), np.array([[0, 1, 2], [-3, 4, 5]])
SPACES: dict[str, gym.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "discrete from 3": spaces.Discrete(5, start=3),
    "discrete from -2": spaces.Discrete(4, start=-2),
    "multi-discrete": spaces.MultiDiscrete([2, 6, 3]),
    "multi-discrete grid": spaces.MultiDiscrete(SIZES, start=STARTS),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary grid": spaces.MultiBinary([2, 3]),
    "box": spaces.Box(np.array([-1.0, 0.0, -3.0], np.float32), np.array([1.0, 5.0, -2.0], np.float32)),
    "box grid": spaces.Box(-2.0, 2.0, (2, 3)),
    "box without axes": spaces.Box(-2.0, 0.5, ()),
    "box of float64 with bounds that are no float32": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "half-bounded box": spaces.Box(np.array([-np.inf, 0], np.float32), np.array([1, np.inf], np.float32)),
    "unbounded box": spaces.Box(-np.inf, np.inf, (2,)),
}
CHOICES = [name for name, space in SPACES.items() if not isinstance(space, spaces.Box)]


# -- choices ----------------------------------------------------------------------------------------------------------


def test_a_categorical_agrees_with_torch_distributions() -> None:
    logits = random(T, B, 2, 6, seed=1)
    ours = Categorical(logits)
    theirs: Any = torch.distributions.Categorical(logits=logits)
    action = torch.randint(0, 6, (T, B, 2), generator=seeded(2))
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.equal(ours.mode(), theirs.mode)
    assert not torch.allclose(ours.log_prob(5 - action), ours.log_prob(action))


def test_samples_come_as_often_as_their_probabilities_say() -> None:
    logits = random(2, 5, seed=3)
    n = 40_000
    drawn = Categorical(logits.expand(n, 2, 5)).sample(seeded(4))
    frequency = torch.nn.functional.one_hot(drawn, 5).double().mean(0)
    p = logits.softmax(-1)
    limit = 4.5 * (p * (1 - p) / n).sqrt()
    assert ((frequency - p).abs() < limit).all()
    assert not ((frequency.flip(0) - p).abs() < limit).all()


def test_float32_logits_of_any_size_stay_finite_and_low_precision_ones_are_widened() -> None:
    huge = Categorical(torch.tensor([[[1e4, -1e4, 0.0]]]))
    assert huge.entropy() == 0 and huge.mode() == 0 and huge.log_prob(torch.tensor([[1]])) == -2e4
    assert Categorical(torch.zeros(1, 1, 3, dtype=torch.bfloat16)).log_p.dtype == torch.float32


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_does_not_exist_is_never_drawn(name: str) -> None:
    """Not even where a mask allows nothing at all."""
    head = head_of(SPACES[name])
    for allowed in (True, False):
        mask = torch.full((2000, head.mask_size), allowed)
        distribution = head(random(2000, H, seed=5), mask)
        sample = distribution.sample(seeded(6))
        sizes = torch.tensor(head.sizes)
        assert (sample >= 0).all() and (sample < sizes).all() and (distribution.mode() < sizes).all()
        assert (sample.max(0).values == sizes - 1).all()  # and every one that exists is, sooner or later
        assert distribution.entropy().isfinite().all()


def test_uniform_choices_have_the_entropy_of_their_sizes() -> None:
    space = spaces.MultiDiscrete([2, 6, 3])
    head = head_of(space)
    head.projection.weight.data.zero_()
    head.projection.bias.data.zero_()
    entropy = head(random(B, H, seed=1)).entropy()
    torch.testing.assert_close(entropy, torch.full((B,), float(np.log([2, 6, 3]).sum())).double())
    assert not torch.allclose(entropy, torch.full((B,), 3 * float(np.log(6))).double())  # padding counts for nothing


def a_mask(head: ChoiceHead, *lead: int) -> Tensor:
    """[*lead, A] bool that leaves at least the last value of every choice."""
    mask = torch.rand(*lead, head.mask_size, generator=seeded(7)) < 0.5
    mask[..., np.cumsum(head.sizes) - 1] = True
    return mask


@pytest.mark.parametrize("name", CHOICES)
def test_a_masked_choice_has_probability_0_and_the_others_are_renormalised(name: str) -> None:
    head, features = head_of(SPACES[name]), random(T, B, H, seed=8)
    mask = a_mask(head, T, B)
    free, masked = head(features), head(features, mask)
    first = 0
    entropy = torch.zeros(T, B, dtype=torch.float64)
    for k, n in enumerate(head.sizes):
        legal = mask[..., first : first + n]
        p = free.log_p[..., k, :n].exp() * legal
        p = p / p.sum(-1, keepdim=True)
        torch.testing.assert_close(masked.log_p[..., k, :n].exp(), p)
        assert not masked.log_p[..., k, :n].exp()[~legal].any()
        assert not masked.log_p[..., k, n:].exp().any()
        exact: Any = torch.distributions.Categorical(probs=p)
        entropy += exact.entropy()
        first += n
    torch.testing.assert_close(masked.entropy(), entropy)
    assert not torch.allclose(masked.log_p, free.log_p)
    assert torch.equal(head(features, torch.ones_like(mask)).log_p, free.log_p)


def test_masked_choices_are_never_drawn_and_their_gradients_are_finite() -> None:
    head = action_head(spaces.MultiDiscrete([2, 6, 3]), H)  # float32, as in training
    assert isinstance(head, ChoiceHead)
    mask = a_mask(head, 5000)
    features = torch.randn(5000, H, generator=seeded(9)).requires_grad_()
    distribution = head(features, mask)
    action = distribution.sample(seeded(10))
    flat = action + torch.tensor([0, 2, 8])
    assert mask.gather(1, flat).all() and not mask.all()
    assert mask.gather(1, distribution.mode() + torch.tensor([0, 2, 8])).all()
    (distribution.log_prob(action).sum() + distribution.entropy().sum()).backward()
    assert features.grad is not None and features.grad.isfinite().all() and features.grad.any()
    assert float(torch.tensor(ILLEGAL).exp()) == 0
    assert torch.tensor([-torch.inf, 0.0]).softmax(0).mul(torch.tensor([-torch.inf, 0.0])).sum().isnan()


def test_a_mask_of_the_wrong_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="action mask: expected 5 flags, got 1"):
        action_head(spaces.Discrete(5), H)(torch.zeros(B, H), torch.ones(B, 1, dtype=torch.bool))


# -- points -----------------------------------------------------------------------------------------------------------


def test_a_gaussian_agrees_with_torch_distributions() -> None:
    mean, log_std, action = random(T, B, 2, seed=1), random(2, seed=2), random(T, B, 2, seed=3)
    ours = Gaussian(mean, log_std)
    theirs: Any = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.equal(ours.mode(), mean)
    assert not torch.allclose(ours.log_prob(action.flip(-1)), ours.log_prob(action))


def test_gaussian_samples_have_its_mean_and_deviation() -> None:
    mean, log_std, n = torch.tensor([3.0, -1.0]), torch.tensor([-1.0, 0.5]), 40_000
    drawn = Gaussian(mean.expand(n, 2), log_std).sample(seeded(5))
    std = log_std.exp()
    assert ((drawn.mean(0) - mean).abs() < 4.5 * std / n**0.5).all()
    assert ((drawn.std(0) / std - 1).abs() < 4.5 / (2 * n) ** 0.5).all()


def test_neither_samples_nor_modes_carry_gradient_but_log_probabilities_do() -> None:
    for name in ("multi-discrete", "box"):
        distribution = head_of(SPACES[name])(random(B, H, seed=1))
        sample = distribution.sample(seeded(0))
        assert not sample.requires_grad and not distribution.mode().requires_grad
        assert distribution.log_prob(sample).requires_grad and distribution.entropy().requires_grad


def test_a_bounded_box_is_scaled_to_one_and_clipped_at_its_bounds() -> None:
    head = head_of(spaces.Box(np.array([-4.0, 1.0], np.float32), np.array([4.0, 2.0], np.float32)))
    inside = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [0.5, -0.5]])
    want = torch.tensor([[-4.0, 1.0], [4.0, 2.0], [0.0, 1.5], [2.0, 1.25]])
    torch.testing.assert_close(head.to_env(inside).float(), want)
    torch.testing.assert_close(head.from_env(want).float(), inside)
    torch.testing.assert_close(head.to_env(torch.tensor([[-9.0, 9.0]])).float(), torch.tensor([[-4.0, 2.0]]))


def test_unbounded_and_half_bounded_axes_keep_the_unit_of_the_environment() -> None:
    point = torch.tensor([[-7.5, 7.5], [7.5, -7.5]])
    torch.testing.assert_close(head_of(SPACES["unbounded box"]).to_env(point).float(), point)
    half = head_of(SPACES["half-bounded box"]).to_env(point).float()  # high 1 on the first axis, low 0 on the second
    torch.testing.assert_close(half, torch.tensor([[-7.5, 7.5], [1.0, 0.0]]))


def test_a_bound_at_the_largest_float_is_no_bound_and_an_axis_of_no_width_gives_no_infinity() -> None:
    largest = float(np.finfo(np.float32).max)
    for high in (largest, 10 * largest, float(np.finfo(np.float64).max)):
        head = head_of(spaces.Box(-high, high, (1,), np.float64))
        torch.testing.assert_close(head.to_env(torch.tensor([[2.5]])).float(), torch.tensor([[2.5]]))
    fixed = head_of(spaces.Box(3.0, 3.0, (1,)))
    assert fixed.to_env(torch.tensor([[8.0]])) == 3 and fixed.from_env(torch.tensor([[3.0]])) == 0


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_every_action_lies_in_the_space_and_comes_back_as_it_was(name: str) -> None:
    space = SPACES[name]
    head = action_head(space, H)
    for parameter in head.parameters():
        parameter.data = 3 * torch.randn(parameter.shape, generator=seeded(1))
    distribution = head(torch.randn(200, H, generator=seeded(2)))
    for action in (distribution.sample(seeded(3)), distribution.mode()):
        assert action.shape == (200, *head.event_shape) and action.dtype == head.dtype
        sent = head.to_env(action)
        assert sent.shape == (200, *(space.shape or ()))
        for row in sent.numpy().astype(space.dtype):
            assert space.contains(np.asarray(row))
        again = head.to_env(head.from_env(sent))
        torch.testing.assert_close(again, sent, rtol=0, atol=1e-5)
        if name in CHOICES:
            assert torch.equal(head.from_env(sent), action)
    if name in ("discrete from 3", "box"):  # without the translation it would not
        assert not all(space.contains(np.asarray(row).reshape(space.shape or ())) for row in action.numpy())


@pytest.mark.parametrize("name", SPACES)
def test_what_an_environment_would_draw_can_be_told_back(name: str) -> None:
    space = SPACES[name]
    space.seed(0)
    drawn = torch.as_tensor(np.array([[space.sample() for _ in range(B)] for _ in range(T)]))
    head = action_head(space, H)
    action = head.from_env(drawn)
    assert action.shape == (T, B, *head.event_shape)
    torch.testing.assert_close(head.to_env(action), drawn.to(head.to_env(action).dtype), rtol=0, atol=1e-5)
    assert head(torch.zeros(T, B, H)).log_prob(action).isfinite().all()


@pytest.mark.parametrize("name", ["multi-discrete", "box"])
def test_samples_are_reproducible_through_their_generator_alone(name: str) -> None:
    distribution = head_of(SPACES[name])(random(50, H, seed=1))
    first, again, other = (distribution.sample(seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    before = torch.get_rng_state()
    distribution.sample(seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "space",
    [spaces.Dict(a=spaces.Discrete(2)), spaces.Tuple([spaces.Discrete(2)]), spaces.Box(0, 9, (2,), np.int64)],
    ids=["dict", "tuple", "box of int64"],
)
def test_an_unsupported_space_is_an_error_that_names_it(space: gym.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"action space: expected Discrete.* got (Dict|Tuple|Box)"):
        action_head(space, H)


def test_values_have_one_number_a_step_in_float32() -> None:
    head = ValueHead(H)
    assert head(torch.zeros(T, B, H)).shape == (T, B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(torch.zeros(B, H)).dtype == torch.float32
    assert head.double()(torch.zeros(B, H).double()).dtype == torch.float64


@pytest.mark.parametrize(("mean", "scale"), [(-60.0, 20.0), (3e-9, 1e-8), (1e8, 1e6)])
def test_a_change_of_the_values_unit_leaves_the_values_and_moves_the_projection(mean: float, scale: float) -> None:
    head, features = ValueHead(H).double(), random(T, B, H, seed=4)
    with torch.no_grad():
        head.projection.weight.copy_(random(1, H, seed=5))
        head.projection.bias.fill_(0.7)
    head.rescale(torch.tensor(1.5), torch.tensor(4.0))
    before, weight = head(features), head.projection.weight.clone()
    head.rescale(torch.tensor(mean, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
    torch.testing.assert_close(head(features), before, rtol=1e-6, atol=0)
    torch.testing.assert_close(head.projection.weight, weight * (4.0 / scale))
    torch.testing.assert_close(head(features), mean + scale * head.projection(features).squeeze(-1), rtol=1e-6, atol=0)


def test_values_are_0_before_training_and_the_mean_once_there_is_one() -> None:
    head, features = ValueHead(H), random(T, B, H, seed=4).float()
    assert (head(features) == 0).all()
    head.rescale(torch.tensor(7.0), torch.tensor(1e-3))
    assert (head(features) == 7).all() and not head.projection.bias.any()


def test_distributions_of_single_steps_make_one_over_time() -> None:
    choices = [Categorical(torch.randn(3, 2, 5)) for _ in range(4)]
    points = [Gaussian(torch.randn(3, 2), torch.tensor([0.5, -1.0])) for _ in range(4)]
    for steps in (choices, points):
        actions = [step.sample() for step in steps]
        whole = type(steps[0]).stack(steps)  # type: ignore[arg-type]
        want = torch.stack([step.log_prob(action) for step, action in zip(steps, actions, strict=True)])
        assert torch.equal(whole.log_prob(torch.stack(actions)), want)
        assert torch.equal(whole.entropy(), torch.stack([step.entropy() for step in steps]))
