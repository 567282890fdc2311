"""The feed-forward half of a block in few operations, against the modules of torch, values and gradients."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rlmin.encoders import Stack
from rlmin.kernels.feed_forward import feed_forward, silu_mlp, usable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


pytestmark = pytest.mark.usefixtures("kernel_without_numba")


def make(*sizes: int, dtype: torch.dtype = torch.float64) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(*pair).to(DEVICE, dtype) for pair in pairwise(sizes)]


def draw(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return x.to(DEVICE).requires_grad_()


def compare(found: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(wanted)
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), leaves) for x in (found, wanted)))


@pytest.mark.parametrize("lead", [(5, 3), (7,), (1, 1), (41, 9)])
@pytest.mark.parametrize(("D", "H"), [(6, 10), (1, 2), (9, 150)])
def test_it_is_the_modules_one_after_the_other(lead: tuple[int, ...], D: int, H: int) -> None:
    (first, second), norm = make(D, H, D), nn.LayerNorm(D).to(DEVICE, torch.float64)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.add_(torch.randn_like(weight))
    x, update = draw(*lead, D, seed=1), draw(*lead, D, seed=2)
    s = x + update
    wanted = s + second(nn.functional.silu(first(norm(s))))
    leaves = [x, update, *norm.parameters(), *first.parameters(), *second.parameters()]
    compare(feed_forward(x, update, norm, first, second), wanted, leaves)
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(x, update, norm, first, second), wanted)
        assert not torch.allclose(feed_forward(x, 0 * update, norm, first, second), wanted), "the update counts"


def test_float32_is_as_exact_as_torch() -> None:
    (first, second), norm = make(24, 48, 24, dtype=torch.float32), nn.LayerNorm(24).to(DEVICE)
    x, update = (draw(9, 4, 24, seed=i, dtype=torch.float32) for i in (1, 2))
    s = x + update
    leaves = [x, update, *norm.parameters(), *first.parameters(), *second.parameters()]
    compare(feed_forward(x, update, norm, first, second), s + second(nn.functional.silu(first(norm(s)))), leaves)


@pytest.mark.parametrize("wanted", [True, False])
def test_an_mlp_of_two_layers(wanted: bool) -> None:
    (first, second), x = make(5, 9, 4), draw(7, 3, 5, seed=1).requires_grad_(wanted)
    leaves = [*([x] if wanted else []), *first.parameters(), *second.parameters()]
    compare(silu_mlp(x, first, second), second(nn.functional.silu(first(x))), leaves)


def test_inputs_may_lie_anywhere_in_memory() -> None:
    (first, second), norm = make(6, 4, 6), nn.LayerNorm(6).to(DEVICE, torch.float64)
    x, update = draw(3, 6, 5, seed=1).transpose(1, 2), draw(5, 3, 6, seed=2).transpose(0, 1)
    s = x + update
    compare(feed_forward(x, update, norm, first, second), s + second(nn.functional.silu(first(norm(s)))), [x, update])


def test_the_operators_keep_what_pytorch_asks_of_operators() -> None:
    x, update, dn, dy = (draw(3, 2, 4, seed=i).detach() for i in range(4))
    gamma, beta, bias = (draw(4, seed=i).detach() for i in range(5, 8))
    ops, tests = torch.ops.rlmin, ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.add_norm_forward.default, (x, update, gamma, beta, bias, 1e-5), test_utils=tests)
    torch.library.opcheck(ops.add_norm_backward.default, (dn, dy, x, update, gamma, 1e-5), test_utils=tests)
    torch.library.opcheck(ops.silu_backward.default, (dn[0], dy[0]), test_utils=tests)


def test_a_stack_is_the_same_with_it_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stack = Stack(4, 6, layers=2).to(DEVICE, torch.float64)
    x, start = draw(5, 3, 4, seed=1), torch.zeros(5, 3, dtype=torch.bool, device=DEVICE)
    start[2, 1] = True
    results = []
    for off in (False, True):
        if off:
            for module in ("feed_forward", "norm_conv", "block"):
                monkeypatch.setattr(f"rlmin.encoders.block.{module}.usable", lambda *_, **__: False)
        y, _ = stack(x, stack.initial_state(3), start)
        results.append((y, torch.autograd.grad(y.square().sum(), [x, *stack.parameters()])))
    torch.testing.assert_close(*results)


def test_it_is_used_where_numba_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 3, device=DEVICE)
    assert usable(x, x[0]) and not usable(x, x[0].double()) and not usable(x[:0], x[0])
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert not usable(x, x[0])
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    assert not usable(torch.zeros(2, 3), torch.zeros(3))
