"""A step of a stack in one call gives what its modules give one by one, and is not taken where these must be called."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from gymnasium import spaces
from one_call import CHANGES, check_fallback, optimise
from torch import Tensor, nn

from rlmin.encoders import Stack, stack_step
from rlmin.kernels.step import product
from rlmin.policy.heads import ILLEGAL, Categorical, ChoiceHead
from rlmin.policy.inputs import Inputs
from rlmin.types import State, map_state

T, B, D, H = 4, 5, 3, 19
DOUBLE, SINGLE = 1e-11, 2e-5

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "min_lstm": {"mixer": "min_lstm"},
    "identity": {"candidate": "identity"},
    "g": {"candidate": "g"},
    "min_lstm g": {"mixer": "min_lstm", "candidate": "g"},
    "no conv": {"conv": 0},
    "conv of width 2": {"conv": 2},
    "no mlp": {"mlp": 0},
    "no conv, no mlp": {"conv": 0, "mlp": 0},
    "narrow mlp": {"mlp": 1, "layers": 1},
    "wide mlp": {"mlp": 4},
    "rms": {"norm": "rms", "layers": 3},
    "no norm": {"norm": "none"},
}
every_option = pytest.mark.parametrize("name", OPTIONS)


@pytest.fixture(autouse=True)
def the_fast_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RLMIN_KERNEL", raising=False)
    if product.address(torch.float32) is None:
        pytest.skip("torch's libraries show no matrix product here")
    yield


def random(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def stack(dtype: torch.dtype = torch.float64, D: int = D, **options: Any) -> Stack:
    """One whose every weight is random, so that none can be without effect."""
    made = Stack(D, H, **options).to(dtype)
    for i, weight in enumerate(made.parameters()):
        weight.data += 0.3 * random(*weight.shape, seed=100 + i, dtype=dtype)
    return made


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def memory(encoder: Stack, rows: int) -> State:
    dtype = next(encoder.parameters()).dtype
    return map_state(lambda zero: random(*zero.shape, seed=zero.dim(), dtype=dtype), encoder.initial_state(rows))


def resets(rows: int) -> Tensor:
    return torch.arange(T * rows).view(T, rows) % 3 == 1


def played(encoder: Stack, start: Tensor, x: Tensor | None = None, state: State = ()) -> list[Tensor]:
    """Outputs of T steps, and the memory after the last."""
    dtype, rows = next(encoder.parameters()).dtype, start.shape[1]
    x = random(T, rows, encoder.input_size, seed=1, dtype=dtype) if x is None else x
    state = state or memory(encoder, rows)
    ys = []
    for t in range(T):
        y, state = encoder.step(x[t], state, start[t])
        ys.append(y)
    return [torch.stack(ys), *leaves(state)]


def in_one_call(encoder: Stack, *arguments: Any, **named: Any) -> list[Tensor]:
    with torch.no_grad():
        found = played(encoder, *arguments, **named)
    assert taken(encoder)
    return found


def one_by_one(encoder: Stack, *arguments: Any, **named: Any) -> list[Tensor]:
    """What the modules give."""
    usual: Any = encoder._in_one_call
    encoder._in_one_call = lambda *_: None  # type: ignore[assignment]
    with torch.no_grad():
        found = played(encoder, *arguments, **named)
    encoder._in_one_call = usual
    return found


def taken(encoder: Stack) -> bool:
    plan = encoder._in_one_call._plan
    return plan is not None and plan.usable


def assert_same(got: list[Tensor], want: list[Tensor], tolerance: float = DOUBLE) -> None:
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def assert_differ(got: list[Tensor], want: list[Tensor]) -> None:
    assert not torch.allclose(got[0], want[0], rtol=1e-3, atol=1e-3)


@every_option
def test_one_call_gives_what_the_modules_give(name: str) -> None:
    encoder = stack(**OPTIONS[name])
    want = one_by_one(encoder, resets(B))
    assert_same(in_one_call(encoder, resets(B)), want)
    assert_differ(in_one_call(encoder, ~resets(B)), want)


@pytest.mark.parametrize("name", ["default", "min_lstm g"])
def test_in_float32_they_agree_to_rounding(name: str) -> None:
    encoder = stack(torch.float32, **OPTIONS[name])
    want = one_by_one(encoder, resets(B))
    assert_same(in_one_call(encoder, resets(B)), want, SINGLE)
    assert_differ(in_one_call(encoder, ~resets(B)), want)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [D, H], ids=["embedded", "as it is"])
def test_any_number_of_rows_in_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, rows: int, threads: int, size: int
) -> None:
    monkeypatch.setattr(stack_step, "_PARALLEL_SIZE", 1)
    torch.set_num_threads(threads)
    encoder = stack(D=size)
    want = one_by_one(encoder, resets(rows))
    assert_same(in_one_call(encoder, resets(rows)), want)
    assert_differ(in_one_call(encoder, ~resets(rows)), want)


def test_any_layout() -> None:
    encoder = stack()
    x, before = random(B, D, T, seed=1).permute(2, 0, 1), memory(encoder, B)
    start = resets(B).t().contiguous().t()
    strided = map_state(lambda part: part.transpose(0, -1).contiguous().transpose(0, -1), before)
    assert not x[0].is_contiguous() and not leaves(strided)[0].is_contiguous()
    want = one_by_one(encoder, resets(B), x.contiguous(), before)
    assert_same(in_one_call(encoder, start, x, strided), want)
    assert_differ(in_one_call(encoder, start, x.flip(1), strided), want)


def test_what_went_in_is_not_written_to_and_what_came_out_stays() -> None:
    encoder = stack()
    x, before, start = random(T, B, D, seed=1), memory(encoder, B), resets(B)
    copies = [part.clone() for part in (x, *leaves(before))]
    with torch.no_grad():
        first = encoder.step(x[0], before, start[0])
        kept = [part.clone() for part in (first[0], *leaves(first[1]))]
        second = encoder.step(x[1], first[1], start[1])
    assert taken(encoder)
    torch.testing.assert_close([x, *leaves(before)], copies, rtol=0, atol=0)
    torch.testing.assert_close([first[0], *leaves(first[1])], kept, rtol=0, atol=0)
    assert not torch.equal(second[0], first[0])


def test_what_is_not_finite_stays_in_its_row_and_is_wiped_at_a_start() -> None:
    encoder, start = stack(), torch.zeros(T, B, dtype=torch.bool)
    x, before = random(T, B, D, seed=1), memory(encoder, B)
    want = in_one_call(encoder, start, x, before)
    for bad in (torch.nan, torch.inf):
        spoilt = map_state(lambda part, bad=bad: part.index_fill(0, torch.tensor([1]), bad), before)  # type: ignore[misc]
        got = in_one_call(encoder, start, x, spoilt)
        others = [0, 2, 3, 4]
        assert torch.equal(got[0][:, others], want[0][:, others]) and not got[0][:, 1].isfinite().any()
        start_1 = start.clone()
        start_1[0, 1] = True
        assert all(part.isfinite().all() for part in in_one_call(encoder, start_1, x, spoilt))


# -- what is around the stack -----------------------------------------------------------------------------------------


def test_where_a_mask_forbids_everything_samples_are_spread_evenly() -> None:
    rows, sizes = 3000, [2, 5]
    head = ChoiceHead(spaces.MultiDiscrete(sizes), H)
    mask = torch.zeros(rows, sum(sizes), dtype=torch.bool)
    features, generator = torch.zeros(rows, H), torch.Generator().manual_seed(0)
    drawn = head(features, mask).sample(generator)
    shares = [drawn[:, k].bincount(minlength=n) / rows for k, n in enumerate(sizes)]
    assert all(len(share) == n and (share - 1 / n).abs().max() < 0.04 for share, n in zip(shares, sizes, strict=True))
    unshifted = Categorical(torch.full((rows, 1, 5), ILLEGAL)).sample(generator)
    assert (unshifted.flatten().bincount(minlength=5) / rows - 1 / 5).abs().max() > 0.04


def test_choices_are_embedded_without_gradients_as_with_them() -> None:
    sizes = [2, 5, 3]
    embed = Inputs(spaces.MultiDiscrete(sizes), H)
    x = torch.stack([torch.arange(7) % n for n in sizes], dim=-1)
    want = embed({"observation": x}, torch.zeros(7)).detach()
    with torch.no_grad():
        torch.testing.assert_close(embed({"observation": x}, torch.zeros(7)), want)
        assert not torch.allclose(embed({"observation": x.roll(1, 0)}, torch.zeros(7)), want)


# -- the weights that count are those of now --------------------------------------------------------------------------


def one_module_replaced(encoder: Stack) -> Stack:
    block: Any = encoder.blocks[1]
    block.mixer.projection = nn.Linear(H, 2 * H, dtype=torch.float64)
    return encoder


@pytest.mark.parametrize("change", [*CHANGES, one_module_replaced])
def test_weights_that_change_are_seen(change: Callable[[Stack], Stack]) -> None:
    encoder = stack()
    before = in_one_call(encoder, resets(B))
    after = change(encoder)
    got = in_one_call(after, resets(B))
    assert_same(got, one_by_one(after, resets(B)))
    assert_differ(got, before)


def test_a_copy_does_not_share_what_its_original_changes() -> None:
    encoder = stack()
    before = in_one_call(encoder, resets(B))
    copy = deepcopy(encoder)
    optimise(encoder)
    assert_same(in_one_call(copy, resets(B)), before)
    assert_differ(in_one_call(encoder, resets(B)), before)


# -- where the modules are called -------------------------------------------------------------------------------------


def hooked(encoder: Stack) -> None:
    block: Any = encoder.blocks[0]
    block.mixer.projection.register_forward_hook(lambda module, inputs, output: output + 1)


def other_eps(encoder: Stack) -> None:
    block: Any = encoder.blocks[1]
    block.norm.eps = 1.0


def other_activation(encoder: Stack) -> None:
    block: Any = encoder.blocks[1]
    block.mlp[1] = nn.Identity()


def without_bias(encoder: Stack) -> None:
    block: Any = encoder.blocks[1]
    block.mlp[2] = nn.Linear(2 * H, H, bias=False, dtype=torch.float64)


@pytest.mark.parametrize("change", [hooked, other_eps, other_activation, without_bias])
@pytest.mark.parametrize("seen", [False, True], ids=["before the first step", "after it"])
def test_a_stack_that_the_call_does_not_know_calls_its_modules(change: Callable[[Stack], None], seen: bool) -> None:
    encoder, plain = stack(), stack()
    if seen:
        in_one_call(encoder, resets(B))
    change(encoder)
    with torch.no_grad():
        got = played(encoder, resets(B))
    torch.testing.assert_close(got, one_by_one(encoder, resets(B)), rtol=0, atol=0)
    assert_differ(got, in_one_call(plain, resets(B)))


def test_without_the_symbol_the_modules_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "address", lambda dtype: None)
    encoder = stack()
    with torch.no_grad():
        got = played(encoder, resets(B))
    assert not taken(encoder)
    torch.testing.assert_close(got, one_by_one(encoder, resets(B)), rtol=0, atol=0)


def test_the_symbol_is_found_by_name_only() -> None:
    assert product.address(torch.float64) is not None
    assert product.address(torch.bfloat16) is None


@pytest.mark.parametrize("mixer", ["gru", "lstm", "mlp"])
def test_other_mixers_are_called(mixer: str) -> None:
    encoder = stack(mixer=mixer)
    with torch.no_grad():
        got = played(encoder, resets(B))
    assert not taken(encoder)
    torch.testing.assert_close(got, one_by_one(encoder, resets(B)), rtol=0, atol=0)


def test_with_gradients_or_autocast_or_another_kernel_the_modules_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = stack(torch.float32)
    x, before, start = torch.ones(B, D), encoder.initial_state(B), resets(B)[0]
    check_fallback(lambda: encoder.step(x, before, start)[0], lambda: taken(encoder), monkeypatch)
