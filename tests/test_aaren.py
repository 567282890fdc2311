"""Aaren is a softmax over all past steps of the episode in constant memory: beside that softmax written out in full."""

from typing import cast

import pytest
import torch
from encoder_laws import gradients, leaves, random
from test_attention import episodes, largest
from torch import Tensor

from rlmin.encoders import Aaren, aaren
from rlmin.types import map_state

B, D, H = 2, 3, 8


def make(*, heads: int = 2, scale: float = 1.0) -> Aaren:
    """`scale`: how much larger scores are than at the beginning of training."""
    torch.manual_seed(0)
    made = Aaren(D, H, heads=heads).double()
    with torch.no_grad():
        made.query.mul_(scale)
    return made


def written_out(encoder: Aaren, x: Tensor, start: Tensor, at: Tensor | None = None) -> Tensor:
    """y at the steps `at`, or at all: a softmax of all T scores."""
    T, heads = len(x), encoder.heads
    at = torch.arange(T) if at is None else at
    key, value = encoder.key(x).view(T, B, heads, -1), encoder.value(x).view(T, B, heads, -1)
    score = (key * encoder.query).sum(-1) / encoder.size**0.5  # [T, B, heads]
    episode = start.cumsum(0)
    past = (torch.arange(T) <= at.unsqueeze(1)).unsqueeze(2) & (episode == episode[at].unsqueeze(1))  # [at, T, B]
    weight = torch.where(past.unsqueeze(3), score, -torch.inf).softmax(1)
    y = (weight.unsqueeze(4) * value).sum(1) if T < 100 else torch.einsum("atbh,tbhs->abhs", weight, value)
    return cast(Tensor, encoder.output(y.flatten(2)))


def assert_same(encoder: Aaren, got: Tensor, want: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(got, want)
    wrt = [x, *encoder.parameters()]
    torch.testing.assert_close(gradients([got], wrt), gradients([want], wrt), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("T", [1, 2, 47])
def test_aaren_is_a_softmax_over_the_past_of_the_episode(T: int, scale: float) -> None:
    encoder, x, start = make(scale=scale), random(T, B, D, seed=1), episodes(T, 19)
    y, _ = encoder(x, encoder.initial_state(B), start)
    assert_same(encoder, y, written_out(encoder, x, start), x)
    if T > 19:
        assert not torch.allclose(y, written_out(encoder, x, torch.zeros_like(start)))
        assert not torch.allclose(y, written_out(encoder, x.roll(1, 0), start))


def extreme() -> tuple[Aaren, Tensor]:
    """Scores of +-10000, in no order."""
    encoder, x = make(), random(40, B, D, seed=1)
    with torch.no_grad():
        score = encoder.key(x).unflatten(-1, (2, -1)).mul(encoder.query).sum(-1) / encoder.size**0.5
        encoder.query.mul_(1e4 / score.abs().max())
    return encoder, x


def test_scores_of_ten_thousand_either_way_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, x = extreme()
    start = episodes(40, 17)
    y, state = encoder(x, encoder.initial_state(B), start)
    assert_same(encoder, y, written_out(encoder, x, start), x)
    m, u, _ = leaves(state)
    assert m.abs().max() > 1e3 and bool((u >= 1).all())
    single = Aaren(D, H, heads=2)
    single.load_state_dict(encoder.state_dict())
    y, _ = single(x.float(), single.initial_state(B), start)
    assert bool(y.isfinite().all()) and all(bool(g.isfinite().all()) for g in gradients([y], list(single.parameters())))
    monkeypatch.setattr(aaren, "_running_max", lambda score, start: torch.zeros_like(score))
    assert not encoder(x, encoder.initial_state(B), start)[0].isfinite().all(), "exp of the scores as they are"


def test_five_thousand_steps_are_as_exact() -> None:
    T, at = 5000, torch.tensor([0, 1, 63, 64, 1023, 2499, 2500, 4999])
    encoder, x, start = make(scale=5), random(T, B, D, seed=1), torch.zeros(T, B, dtype=torch.bool)
    start[2500, 0] = True
    y, state = encoder(x, encoder.initial_state(B), start)
    assert_same(encoder, y[at], written_out(encoder, x, start, at), x)
    assert [part.shape for part in leaves(state)] == [part.shape for part in leaves(encoder.initial_state(B))]
    assert not torch.allclose(y[at], written_out(encoder, x, torch.zeros_like(start), at))


def test_with_no_preference_it_is_the_mean_and_with_the_strongest_it_is_one_step() -> None:
    x, start = random(30, B, D, seed=1), torch.zeros(30, B, dtype=torch.bool)
    encoder = make(scale=0)
    y, _ = encoder(x, encoder.initial_state(B), start)
    count = torch.arange(1.0, 31, dtype=torch.float64).view(-1, 1, 1)
    torch.testing.assert_close(y, encoder.output(encoder.value(x).cumsum(0) / count))
    encoder = make(heads=1, scale=1e9)
    y, _ = encoder(x, encoder.initial_state(B), start)
    best = (encoder.key(x) * encoder.query).sum(-1).cummax(0).indices
    picked = torch.take_along_dim(encoder.value(x), best.unsqueeze(-1), 0)
    torch.testing.assert_close(y, encoder.output(picked))


def test_nothing_of_an_earlier_episode_is_left_after_a_reset() -> None:
    encoder, x = extreme()
    start = torch.zeros(40, B, dtype=torch.bool)
    start[13] = True
    y, last = encoder(x, encoder.initial_state(B), start)
    spoilt = torch.cat([torch.full_like(x[:13], torch.nan), x[13:]])
    poison = map_state(lambda zero: torch.full_like(zero, torch.nan), encoder.initial_state(B))
    changed, last_changed = encoder(spoilt, poison, start)
    torch.testing.assert_close(changed[13:], y[13:], rtol=0, atol=0)
    torch.testing.assert_close(leaves(last_changed), leaves(last), rtol=0, atol=0)
    assert changed[:13].isnan().all()


def test_a_state_that_has_seen_nothing_weighs_nothing_however_low_the_scores() -> None:
    encoder, x = extreme()
    lowest = (encoder.key(x) * encoder.query.flatten()).sum(-1).argmin()
    seen = x.flatten(0, 1)[lowest].expand(B, D)
    y, (m, u, _) = encoder.step(seen, encoder.initial_state(B), torch.zeros(B, dtype=torch.bool))
    torch.testing.assert_close(y, encoder.output(encoder.value(seen)))
    assert isinstance(m, Tensor) and m.max() < -100 and torch.equal(u, torch.ones_like(m))  # type: ignore[arg-type]


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    assert largest(make(), 4096) < 2.1 * largest(make(), 2048)


def test_no_head_is_too_few() -> None:
    with pytest.raises(ValueError, match="heads: expected a whole number of at least 1, got 0"):
        Aaren(D, H, heads=0)
