"""LayerNorm and causal convolution as one operation, against the modules of torch, values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlmin.encoders import CausalConv, Stack
from rlmin.encoders.base import one
from rlmin.kernels.norm_conv import norm_conv, usable

KINDS = ["portable", "gpu"]


@pytest.fixture(params=KINDS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gpu":
        pytest.importorskip("rlmin.scan.gpu", reason="Triton is not installed", exc_type=ImportError)
    monkeypatch.setenv("RLMIN_KERNEL", request.param)
    return str(request.param)


def make(T: int, B: int, D: int, width: int, dtype: torch.dtype = torch.float64) -> tuple[nn.LayerNorm, Any, Any]:
    """A norm and a convolution with weights that are not their first ones, and inputs that want gradients."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    norm, conv = nn.LayerNorm(D).to(device, dtype), CausalConv(D, width=width).to(device, dtype)
    with torch.no_grad():
        for weight in (*norm.parameters(), *conv.parameters()):
            weight.add_(torch.randn_like(weight))
    x = torch.randn(T, B, D, dtype=dtype, device=device, requires_grad=True)
    state = torch.randn(B, width - 1, D, dtype=dtype, device=device, requires_grad=True)
    return norm, conv, (x, state)


def draw_starts(T: int, B: int, rate: float) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < rate).to(device)


def compare(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Any], leaves: list[Tensor]) -> None:
    y, last = wanted[0], one(wanted[1])
    torch.testing.assert_close(found, (y, last))
    weights = [torch.randn_like(y), torch.randn_like(last)]
    both = [
        torch.autograd.grad([(part * weight).sum() for part, weight in zip(pair, weights, strict=True)], leaves)
        for pair in (found, (y, last))
    ]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("T", "B", "D", "width"), [(7, 3, 5, 4), (2, 1, 4, 4), (1, 2, 3, 3), (5, 17, 1, 2), (3, 2, 9, 5)]
)
def test_it_is_the_modules_one_after_the_other(way: str, rate: float, T: int, B: int, D: int, width: int) -> None:
    norm, conv, (x, state) = make(T, B, D, width)
    start = draw_starts(T, B, rate)
    found = norm_conv(x, norm, state, start, conv.weight, conv.bias)
    leaves = [x, state, *norm.parameters(), *conv.parameters()]
    compare(found[:2], conv(norm(x), state, start), leaves)
    if T > 1 and 0 < rate < 1:
        assert not torch.allclose(found[0], conv(norm(x), state, torch.zeros_like(start))[0]), "resets matter"


def test_float32_is_as_exact_as_torch(way: str) -> None:
    norm, conv, (x, state) = make(9, 4, 24, 4, torch.float32)
    start = draw_starts(9, 4, 0.2)
    found = norm_conv(x, norm, state, start, conv.weight, conv.bias)
    compare(found[:2], conv(norm(x), state, start), [x, state, *norm.parameters(), *conv.parameters()])


def test_one_step_is_a_sequence_of_one(way: str) -> None:
    norm, conv, (x, state) = make(1, 3, 5, 4)
    start = torch.tensor([True, False, False], device=x.device)
    with torch.no_grad():
        y, last, _ = norm_conv(x[0], norm, state, start, conv.weight, conv.bias)
        wanted, after = conv.step(norm(x[0]), state, start)
    torch.testing.assert_close((y, last), (wanted, one(after)))


@pytest.mark.parametrize("late", [False, True])
def test_what_is_added_to_x_reaches_it(way: str, late: bool) -> None:
    norm, conv, (x, state) = make(5, 3, 6, 3)
    start = draw_starts(5, 3, 0.3)
    y, last, same = norm_conv(x, norm, state, start, conv.weight, conv.bias)
    assert torch.equal(same, x)
    wanted, after = conv(norm(x), state, start)
    weight = torch.randn_like(x)
    losses = [
        ((a * weight).sin() + b.square()).sum() + late * c.sum()
        for a, b, c in ((y, same, last), (wanted, x, one(after)))
    ]
    found, right = (torch.autograd.grad(loss, [x, state], retain_graph=True) for loss in losses)
    torch.testing.assert_close(found, right)
    straight = torch.autograd.grad((wanted * weight).sin().sum(), x)
    assert not torch.allclose(found[0], straight[0]), "the straight way counts"


def test_only_what_is_needed_further_on_gets_a_gradient(way: str) -> None:
    norm, conv, (x, state) = make(4, 2, 3, 4)
    start = torch.zeros(4, 2, dtype=torch.bool, device=x.device)
    start[3] = True
    y, last, _ = norm_conv(x, norm, state, start, conv.weight, conv.bias)
    assert not torch.autograd.grad(y[3].sum(), [x, state], retain_graph=True)[0][:3].any(), "an episode began"
    assert torch.autograd.grad(last.sum(), x)[0][3].any()


def test_the_operators_keep_what_pytorch_asks_of_operators(way: str) -> None:
    norm, conv, (x, state) = make(3, 2, 4, 3)
    start, op = draw_starts(3, 2, 0.4), torch.ops.rlmin.norm_conv_forward.default
    plain = [x.detach(), state.detach(), start, *(w.detach() for w in (norm.weight, norm.bias, conv.weight, conv.bias))]
    torch.library.opcheck(op, (*plain, 1e-5), test_utils=("test_schema", "test_faketensor"))


def test_it_is_used_where_numba_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 1, 3)
    monkeypatch.setenv("RLMIN_KERNEL", "portable")
    assert usable(x, torch.zeros(3)) and not usable(x, torch.zeros(3).double()) and not usable(x[:0], torch.zeros(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not usable(x, torch.zeros(3)) and usable(x.bfloat16(), torch.zeros(3), autocast=True)
        assert not usable(x, torch.zeros(3).double(), autocast=True)
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    assert not usable(x, torch.zeros(3))


def test_under_autocast_it_is_what_the_modules_are(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stack = Stack(4, 6, layers=2).to(device)
    x, start = torch.randn(5, 3, 4, device=device), draw_starts(5, 3, 0.3)
    results = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr("rlmin.encoders.block.norm_conv.usable", lambda *_, **__: False)
        with torch.autocast(device, dtype=torch.bfloat16):
            y, _ = stack(x, stack.initial_state(3), start)
        grads = torch.autograd.grad(y.float().square().sum(), [*stack.parameters()])
        results.append([y.float().detach(), torch.cat([grad.flatten() for grad in grads])])
    for found, wanted in zip(*results, strict=True):  # the norm of a CPU rounds under autocast, that of a GPU does not
        assert float((found - wanted).norm() / wanted.norm()) < 0.02
    exact = stack(x, stack.initial_state(3), start)[0]
    assert not torch.allclose(exact, results[0][0], rtol=1e-5, atol=1e-5), "products are in bfloat16"
