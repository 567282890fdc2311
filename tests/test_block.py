"""The fused halves of a residual block give what the modules they stand for give, values and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlmin.encoders import CausalConv, Stack
from rlmin.kernels import block

T, B, D, H = 7, 3, 5, 11


def random(*size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_()


def scrambled(module: nn.Module) -> nn.Module:
    """In float64, every weight random, so that none of them can be without effect."""
    for i, parameter in enumerate(module.double().parameters()):
        parameter.data = random(*parameter.shape, seed=100 + i).data
    return module


def gradients(outputs: tuple[Tensor, ...], wrt: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which every element has a weight of its own."""
    total = sum((y * torch.arange(1.0, y.numel() + 1).view(y.shape).cos()).sum() for y in outputs)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, wrt)


def assert_same(
    fused: Callable[[], tuple[Tensor, ...]], plain: Callable[[], tuple[Tensor, ...]], wrt: list[Tensor]
) -> None:
    got, want = fused(), plain()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, wrt), gradients(want, wrt))
    with torch.no_grad():
        torch.testing.assert_close(fused(), got, rtol=0, atol=0)


def starts(steps: int) -> Tensor:
    start = torch.zeros(steps, B, dtype=torch.bool)
    for row, times in enumerate([[0, 5], [2, 3], [steps - 1]]):
        start[[t for t in times if t < steps], row] = True
    return start


@pytest.mark.parametrize("width", [2, 4, 6])
@pytest.mark.parametrize("steps", [1, 2, T])
def test_norm_conv_is_the_convolution_of_the_norm(steps: int, width: int) -> None:
    norm, conv = scrambled(nn.LayerNorm(D)), scrambled(CausalConv(D, width=width))
    assert isinstance(norm, nn.LayerNorm) and isinstance(conv, CausalConv)
    x, state, start = random(steps, B, D, seed=1), random(B, width - 1, D, seed=2), starts(steps)
    wrt = [x, state, *norm.parameters(), *conv.parameters()]

    def plain() -> tuple[Tensor, ...]:
        y, last = conv(norm(x), state, start)
        assert isinstance(last, Tensor)
        return y, last

    assert_same(lambda: block.norm_conv(x, norm, state, start, conv.weight, conv.bias), plain, wrt)
    other = block.norm_conv(x, norm, state, start.roll(1, 1), conv.weight, conv.bias)[0]
    assert not torch.allclose(other, plain()[0]), "resets in the wrong rows: the arm that must fail"


def test_norm_conv_without_a_gradient_of_its_state_or_of_its_output() -> None:
    norm, conv, x = nn.LayerNorm(D).double(), CausalConv(D).double(), random(T, B, D, seed=1)
    state, start = random(B, 3, D, seed=2), starts(T)
    for used in (0, 1):
        got = block.norm_conv(x, norm, state, start, conv.weight, conv.bias)[used]
        want = conv(norm(x), state, start)[used]
        assert isinstance(want, Tensor)
        torch.testing.assert_close(gradients((got,), [x, state]), gradients((want,), [x, state]))


def test_one_step_needs_no_axis_of_time() -> None:
    norm, conv, x, state = nn.LayerNorm(D), CausalConv(D), torch.randn(B, D), torch.randn(B, 3, D)
    start = torch.tensor([True, False, False])
    got = block.norm_conv(x, norm, state, start, conv.weight, conv.bias)
    whole = block.norm_conv(x[None], norm, state, start[None], conv.weight, conv.bias)
    torch.testing.assert_close(got, (whole[0][0], whole[1]), rtol=0, atol=0)


def test_feed_forward_is_the_residual_sum_and_the_mlp_of_its_norm() -> None:
    norm, first, second = scrambled(nn.LayerNorm(D)), scrambled(nn.Linear(D, H)), scrambled(nn.Linear(H, D))
    assert isinstance(norm, nn.LayerNorm) and isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    x, update = random(T, B, D, seed=1), random(T, B, D, seed=2)

    def plain() -> tuple[Tensor, ...]:
        s = x + update
        return (s + second(nn.functional.silu(first(norm(s)))),)

    wrt = [x, update, *norm.parameters(), *first.parameters(), *second.parameters()]
    assert_same(lambda: (block.feed_forward(x, update, norm, first, second),), plain, wrt)
    seen = x.detach()
    assert_same(
        lambda: (block.silu_mlp(seen, first, second),),
        lambda: (second(nn.functional.silu(first(seen))),),
        [*first.parameters(), *second.parameters()],
    )


def test_rows_in_strange_orders_are_read_where_they_are() -> None:
    norm, first, second = nn.LayerNorm(D).double(), nn.Linear(D, H).double(), nn.Linear(H, D).double()
    x, update = random(B, T, D, seed=1).transpose(0, 1), random(T, B, 2 * D, seed=2)[..., ::2]
    s = x + update
    want = s + second(nn.functional.silu(first(norm(s))))
    torch.testing.assert_close(block.feed_forward(x, update, norm, first, second), want)


def test_threads_change_nothing_but_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        encoder = Stack(D, D).double()
        x = random(T, B, D, seed=1)
        y, _ = encoder(x, encoder.initial_state(B), starts(T))
        return (y, *gradients((y,), [x, *encoder.parameters()]))

    want = run()
    torch.set_num_threads(2)
    monkeypatch.setattr(block, "_PARALLEL_SIZE", 1)
    torch.testing.assert_close(run(), want)


def test_a_row_that_is_no_number_stays_alone() -> None:
    encoder, x = Stack(D, D).double(), random(T, B, D, seed=1).detach()
    want, _ = encoder(x, encoder.initial_state(B), starts(T))
    x[2, 1] = torch.nan
    got, _ = encoder(x, encoder.initial_state(B), starts(T))
    assert got[2, 1].isnan().all()
    torch.testing.assert_close(got[:, [0, 2]], want[:, [0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(got[3:, 1], want[3:, 1], rtol=0, atol=0)  # it starts anew at 3


def test_what_the_loops_cannot_take_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.zeros(B, D), torch.zeros(D)
    assert block.usable(x, weight) and block.usable(x.double(), weight.double())
    assert not block.usable(x.bfloat16(), weight.bfloat16())
    assert not block.usable(x.double(), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not block.usable(x, weight)
    torch.manual_seed(0)
    encoder = Stack(D, D).double()
    inputs = random(T, B, D, seed=1), encoder.initial_state(B), starts(T)
    fused = encoder(*inputs)[0]
    monkeypatch.setenv("RLMIN_KERNEL", "portable")
    assert not block.usable(x, weight)
    plain = encoder(*inputs)[0]
    torch.testing.assert_close(fused, plain)


def test_an_activation_that_was_exchanged_is_used_in_training_too() -> None:
    torch.manual_seed(0)
    encoder = Stack(D, D).double()
    inputs = random(T, B, D, seed=1), encoder.initial_state(B), starts(T)
    before, _ = encoder(*inputs)
    for layer in encoder.blocks:
        mlp: Any = layer.mlp
        mlp[1] = nn.Tanh()
    found, _ = encoder(*inputs)
    with torch.no_grad():
        wanted, _ = encoder(*inputs)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, before)
