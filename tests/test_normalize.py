"""The running normaliser: the mean and variance of everything it was shown, whatever the pieces it came in."""

import torch
from torch import Tensor

from rlmin.policy.normalize import Range, RunningNorm

N, D = 50, 3


def samples() -> Tensor:
    draw = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return draw * torch.tensor([0.1, 1.0, 20.0]) + torch.tensor([5.0, -1.0, 300.0])


def shown(*parts: Tensor) -> RunningNorm:
    norm = RunningNorm((D,))
    for part in parts:
        norm.update(part)
    return norm


def test_the_statistics_are_those_of_all_samples_however_they_were_split() -> None:
    x = samples()
    for parts in ([x], [x[:7], x[7:]], [x[:1], x[1:2], x[2:2], x[2:]]):
        norm = shown(*parts)
        torch.testing.assert_close(norm.mean, x.mean(0))
        torch.testing.assert_close(norm.var, x.var(0, correction=0))
        assert norm.count == N
    assert not torch.allclose(shown(x[:7]).mean, x.mean(0))


def test_what_it_gives_has_mean_0_and_variance_1() -> None:
    x = samples()
    y = shown(x)(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(D).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(D).double(), rtol=0, atol=1e-5)
    assert x.mean(0).abs().min() > 0.5


def test_before_the_first_samples_it_only_clips() -> None:
    x = torch.tensor([[-30.0, 0.25, 4.0]])
    for norm in (shown(), shown(samples()[:0])):
        torch.testing.assert_close(norm(x), torch.tensor([[-10.0, 0.25, 4.0]]))


def test_outliers_are_clipped_and_a_constant_feature_gives_no_infinity() -> None:
    norm = RunningNorm((1,), clip=4.0)
    norm.update(torch.full((5, 1), 2.0))
    torch.testing.assert_close(norm(torch.tensor([[2.0], [99.0]])), torch.tensor([[0.0], [4.0]]))


def test_statistics_are_float64_and_the_output_has_the_type_of_the_input() -> None:
    x = samples().float()
    norm = shown(x)
    assert norm.mean.dtype == torch.float64 and norm(x).dtype == torch.float32
    many = RunningNorm(())
    for _ in range(3):
        many.update(torch.full((1000,), 1e4) + torch.arange(1000) % 2)
    torch.testing.assert_close(many.var, torch.tensor(0.25, dtype=torch.float64))
    x32 = 1e4 + torch.arange(1000.0) % 2
    assert abs(float(x32.square().mean() - x32.mean().square()) - 0.25) > 0.1  # what float32 sums would give


def test_statistics_travel_with_the_weights() -> None:
    norm, other = shown(samples()), RunningNorm((D,))
    x = samples()
    assert not torch.allclose(other(x), norm(x))
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(x), norm(x))


def test_a_range_is_that_of_all_samples_however_they_were_split_and_nothing_leaves_it() -> None:
    x = samples()
    for parts in ([x], [x[:7], x[7:]], [x[:1], x[1:2], x[2:2], x[2:]]):
        kept = Range((D,))
        assert torch.equal(kept(1e9 * x), 1e9 * x), "nothing was seen yet"
        for part in parts:
            kept.update(part)
        assert torch.equal(kept(x), x)
        assert torch.equal(kept(x + 1e9), x.amax(0).expand(N, D)) and torch.equal(kept(x - 1e9), x.amin(0).expand(N, D))
        assert kept(x.float()).dtype == torch.float32 and torch.equal(kept(x.float()), x.float())
    few = Range((D,))
    few.update(x[:7])
    assert not torch.equal(few(x), x)
