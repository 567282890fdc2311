"""Attention is a softmax over the last `context` steps of the episode: beside torch's own, and written out in full."""

from typing import cast

import pytest
import torch
from encoder_laws import gradients, leaves, random
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlmin.encoders import Aaren, Attention, Encoder
from rlmin.types import State

B, D, H = 2, 3, 8


def episodes(T: int, every: int) -> Tensor:
    """[T, B] starts, none at 0, in each row at steps of its own."""
    t = torch.arange(T).unsqueeze(1)
    return (t + torch.arange(B)) % every == every - 1


def ages(start: Tensor) -> Tensor:
    """[T, B] steps since the episode began."""
    age = torch.zeros(start.shape, dtype=torch.float64)
    for t in range(1, len(start)):
        age[t] = (age[t - 1] + 1).masked_fill(start[t], 0)
    return age


def written_out(attention: Attention, x: Tensor, start: Tensor, context: int | None = None) -> Tensor:
    """All T queries against all T keys, pairs of features as complex numbers."""
    T, size = len(x), attention.size
    projected = attention.projection(x).view(T, B, 3, attention.heads, size)
    query, key, value = projected.permute(2, 1, 3, 0, 4)  # each [B, heads, T, size]
    frequency = 10000 ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    angle = ages(start).t()[:, None, :, None] * frequency * attention.rotary
    query, key = (
        torch.complex(part[..., : size // 2], part[..., size // 2 :]) * torch.polar(torch.ones_like(angle), angle)
        for part in (query, key)
    )
    score = (query @ key.conj().transpose(-1, -2)).real / size**0.5
    t, episode = torch.arange(T), start.cumsum(0).t()
    back = t.unsqueeze(1) - t
    near = (back >= 0) & (back < (attention.context if context is None else context))
    weight = score.exp() * (near & (episode.unsqueeze(2) == episode.unsqueeze(1))).unsqueeze(1)
    y = weight @ value / weight.sum(-1, keepdim=True)
    return cast(Tensor, attention.output(y.permute(2, 0, 1, 3).reshape(T, B, -1)))


def make(*, seed: int = 0, **options: int | bool) -> Attention:
    torch.manual_seed(seed)
    made = Attention(D, H, **options).double()  # type: ignore[arg-type]
    made.frequency = 10000 ** (-2 * torch.arange(made.size // 2, dtype=torch.float64) / made.size)
    return made


def assert_same(attention: Attention, got: Tensor, want: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(got, want)
    wrt = [x, *attention.parameters()]
    torch.testing.assert_close(gradients([got], wrt), gradients([want], wrt))


@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize(("T", "context"), [(9, 1), (10, 3), (11, 64), (137, 1), (137, 5), (137, 40), (129, 65)])
def test_attention_is_a_softmax_over_its_context_within_the_episode(T: int, context: int, rotary: bool) -> None:
    attention, x = make(heads=2, context=context, rotary=rotary), random(T, B, D, seed=1)
    start = episodes(T, 23 if context < 10 else 71)
    y, _ = attention(x, attention.initial_state(B), start)
    assert_same(attention, y, written_out(attention, x, start), x)
    if context < T:
        assert not torch.allclose(y, written_out(attention, x, start, context + 1))
    if start.any() and context > 1:
        assert not torch.allclose(y, written_out(attention, x, torch.zeros_like(start)))


@pytest.mark.parametrize(("T", "context"), [(12, 64), (75, 7), (75, 38)])
def test_attention_without_rotation_is_torch_multi_head_attention(T: int, context: int) -> None:
    torch.manual_seed(0)
    ours = Attention(H, H, heads=2, context=context, rotary=False).double()
    theirs = nn.MultiheadAttention(H, 2).double()
    pairs = [
        (ours.projection.weight, theirs.in_proj_weight),
        (ours.projection.bias, theirs.in_proj_bias),
        (ours.output.weight, theirs.out_proj.weight),
        (ours.output.bias, theirs.out_proj.bias),
    ]
    with torch.no_grad():
        for own, other in pairs:
            own.copy_(other.normal_())
    x, start = random(T, B, H, seed=1), torch.zeros(T, B, dtype=torch.bool)
    y, _ = ours(x, ours.initial_state(B), start)
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1) | torch.ones(T, T, dtype=torch.bool).tril(-context)
    want, _ = theirs(x, x, x, attn_mask=hidden, need_weights=False)
    torch.testing.assert_close(y, want)
    got_grad = gradients([y], [x, *(own for own, _ in pairs)])
    torch.testing.assert_close(got_grad, gradients([want], [x, *(other for _, other in pairs)]))
    ours.rotary = True
    assert not torch.allclose(ours(x, ours.initial_state(B), start)[0], want)


@pytest.mark.parametrize("context", [1, 5, 33])
def test_a_pass_in_blocks_equals_steps_and_any_split(context: int) -> None:
    T = 110
    attention, x, start = make(heads=2, context=context), random(T, B, D, seed=1), episodes(T, 41)
    whole = flat(attention(x, attention.initial_state(B), start))
    ys, state = [], attention.initial_state(B)
    for t in range(T):
        y, state = attention.step(x[t], state, start[t])
        ys.append(y)
    parts, carried = [], attention.initial_state(B)
    for first, end in ((0, 70), (70, 71), (71, T)):
        y, carried = attention(x[first:end], carried, start[first:end])
        parts.append(y)
    wrt = [x, *attention.parameters()]
    for got in (flat((torch.stack(ys), state)), flat((torch.cat(parts), carried))):
        torch.testing.assert_close(got, whole)
        torch.testing.assert_close(gradients(got, wrt), gradients(whole, wrt))
    fresh = attention(x[70:], attention.initial_state(B), start[70:])[0]
    assert torch.allclose(fresh, whole[0][70:]) == (context == 1), "a split without its state"


def flat(result: tuple[Tensor, State]) -> list[Tensor]:
    return [result[0], *leaves(result[1])]


@pytest.mark.parametrize("context", [1, 4, 40])
def test_a_step_sees_exactly_its_context(context: int) -> None:
    T = 90
    attention, x = make(heads=2, context=context), random(T, B, D, seed=1)
    y, _ = attention(x, attention.initial_state(B), torch.zeros(T, B, dtype=torch.bool))
    for t in (0, 3, 39, 40, 45, T - 1):
        seen = [s for s in range(T) if gradients([y[t]], [x])[0][s].any()]
        assert seen == list(range(max(0, t - context + 1), t + 1))


def test_the_order_of_what_is_seen_matters_with_rotation_and_only_then() -> None:
    x = random(6, B, D, seed=1)
    swapped, start = x[[1, 0, 2, 3, 4, 5]], torch.zeros(6, B, dtype=torch.bool)
    for rotary in (True, False):
        attention = make(heads=2, rotary=rotary)
        y, other = (attention(seen, attention.initial_state(B), start)[0][-1] for seen in (x, swapped))
        assert torch.allclose(y, other) == (not rotary)


def late(age: float, context: int = 9, T: int = 40) -> Tensor:
    """In float32, outputs of steps `age` and on, which see nothing from before."""
    torch.manual_seed(0)
    attention = Attention(D, H, heads=1, context=context)
    keys, values, _ = (part for part in attention.initial_state(B))
    x = random(T, B, D, seed=1).detach().float()
    y, _ = attention(x, (keys, values, torch.full((B,), age)), torch.zeros(T, B, dtype=torch.bool))
    return y[context:].detach()


def test_positions_are_as_exact_a_million_steps_later(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.testing.assert_close(late(1e6), late(0), rtol=0, atol=1e-6)
    monkeypatch.setattr(Tensor, "double", lambda angle: angle)  # angles in float32
    assert not torch.allclose(late(1e6), late(0), rtol=0, atol=1e-4)


def test_the_state_does_not_grow() -> None:
    attention = make(context=7)
    state, sizes = attention.initial_state(B), []
    for t in range(30):
        _, state = attention.step(random(B, D, seed=t), state, torch.zeros(B, dtype=torch.bool))
        sizes.append([(part.shape, part.untyped_storage().nbytes()) for part in leaves(state)])
    assert all(size == sizes[0] for size in sizes)
    _, after = attention(random(30, B, D, seed=1), state, torch.zeros(30, B, dtype=torch.bool))
    assert [part.shape for part in leaves(after)] == [part.shape for part in leaves(state)]


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The number of elements of the largest tensor that any operation returns."""

    found: int = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            self.found = max(self.found, part.numel() if isinstance(part, Tensor) else 0)
        return result


def largest(encoder: Encoder, T: int, *, full: bool = False) -> int:
    x, start = random(T, B, D, seed=1), torch.zeros(T, B, dtype=torch.bool)
    with Largest() as mode:  # type: ignore[no-untyped-call]
        if full:
            assert isinstance(encoder, Attention)
            y = written_out(encoder, x, start)
        else:
            y, _ = encoder(x, encoder.initial_state(B), start)
        gradients([y], [x, *encoder.parameters()])
    return int(mode.found)


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    attention = make(heads=1, context=16)
    assert largest(attention, 4096) < 2.1 * largest(attention, 2048)
    assert largest(attention, 512, full=True) > 3.9 * largest(attention, 256, full=True), "the arm that must fail"


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it itself
@pytest.mark.parametrize("kind", [Attention, Aaren])
def test_torch_compile_sees_one_graph(kind: type[Attention] | type[Aaren]) -> None:
    torch.manual_seed(0)
    encoder, x, start = kind(D, H).double(), random(70, B, D, seed=1), episodes(70, 33)
    torch.compiler.reset()
    before = encoder.initial_state(B)
    for run, arguments in ((encoder.forward, (x, before, start)), (encoder.step, (x[0].detach(), before, start[0]))):
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        got, want = (flat(function(*arguments)) for function in (compiled, run))
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            gradients(got[:1], [*encoder.parameters()]), gradients(want[:1], [*encoder.parameters()])
        )


@pytest.mark.parametrize("name", ["heads", "context"])
def test_none_is_too_few(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected a whole number .*, got 0"):
        Attention(D, H, **{name: 0})  # type: ignore[arg-type]


def test_rows_beyond_a_grid_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, calls = Attention(D, H, heads=2, context=3).double(), list[int]()
    x, start = random(9, B, D, seed=1), episodes(9, 4)
    wanted, after = attention(x, attention.initial_state(B), start)
    step, _ = attention.step(x[0], after, start[0])
    real = torch.nn.functional.scaled_dot_product_attention

    def count(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor) -> Tensor:
        calls.append(len(query))
        return real(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr("rlmin.encoders.attention.scaled_dot_product_attention", count)
    monkeypatch.setattr("rlmin.encoders.attention._MOST_ROWS", 1)
    torch.testing.assert_close(attention(x, attention.initial_state(B), start)[0], wanted)
    torch.testing.assert_close(attention.step(x[0], after, start[0])[0], step)
    assert set(calls) == {1} and len(calls) > 2
