"""A scan is its equation, applied once per step, with the state that enters set to 0 wherever an episode starts.

Every kernel is held to that: values, and the gradients of every input, through every state and through the last one.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlmin.scan import ACTIVATIONS, linear_scan, min_gru_scan, min_lstm_scan

T, B, D = 7, 3, 5
Scan = Callable[..., tuple[Tensor, Tensor]]
linear: Scan = linear_scan
min_gru: Scan = min_gru_scan
min_lstm: Scan = min_lstm_scan
CASES: list[tuple[Scan, dict[str, Any]]] = [
    (linear, {"reverse": False}),
    (linear, {"reverse": True}),
    *((min_gru, {"activation": name}) for name in ACTIVATIONS),
    *((min_lstm, {"activation": name}) for name in ACTIVATIONS),
]
IDS = [f"{scan.__name__} {next(iter(option.values()))}" for scan, option in CASES]
every_case = pytest.mark.parametrize(("scan", "option"), CASES, ids=IDS)
forward_in_time = pytest.mark.parametrize(("scan", "option"), CASES[:1] + CASES[2:], ids=IDS[:1] + IDS[2:])
gated = pytest.mark.parametrize("scan", [min_gru, min_lstm])


def run_unforced(program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process of its own, where no kernel is forced."""
    environment = {k: v for k, v in os.environ.items() if k != "RLMIN_KERNEL"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def interpreted(kernel: str) -> bool:
    """Whether a step costs milliseconds: it runs in Triton's interpreter."""
    return kernel.startswith("gpu") and not torch.cuda.is_available()


def one_activation_will_do(kernel: str, option: dict[str, Any]) -> None:
    if interpreted(kernel) and option.get("activation", "identity") != "identity":
        pytest.skip("the interpreter is slow, and this law is not about the activation")


def one_dtype_will_do(kernel: str, dtype: torch.dtype) -> None:
    if interpreted(kernel) and dtype is torch.float64:
        pytest.skip("the interpreter is slow, and float32 is the harder")


def draw(
    scan: Scan, shape: tuple[int, ...] = (T, B, D), seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, state and some starts; a linear scan gets decays that neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [normal(generator, shape, dtype) for _ in range(3 if scan is min_lstm else 2)]
    if scan is linear:
        inputs[0] = torch.tanh(inputs[0])
    state = normal(generator, shape[1:], dtype)
    start = torch.rand(shape[:2], generator=generator, device="cpu") < 0.3
    return inputs, state, start.to(torch.get_default_device())


def normal(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Drawn on the CPU, so that every kernel sees the same numbers, and put where the kernel runs."""
    x = torch.randn(shape, generator=generator, dtype=dtype, device="cpu")
    return x.to(torch.get_default_device())


def by_the_equation(
    scan: Scan, inputs: list[Tensor], state: Tensor, start: Tensor | None, option: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The definition, written down once more, one step and one operation at a time."""
    steps = len(inputs[0])
    h, states = state, [state] * steps
    for t in reversed(range(steps)) if option.get("reverse") else range(steps):
        if start is not None:
            h = torch.where(start[t].view(-1, *[1] * (h.dim() - 1)), torch.zeros_like(h), h)
        x = [y[t] for y in inputs]
        if scan is linear:
            h = x[0] * h + x[1]
        else:
            v = x[-1]
            c = {"identity": v, "tanh": v.tanh(), "g": torch.where(v >= 0, v + 0.5, v.sigmoid())}[option["activation"]]
            if scan is min_gru:
                h = (1 - x[0].sigmoid()) * h + x[0].sigmoid() * c
            else:
                f, i = x[0].sigmoid(), x[1].sigmoid()
                h = f / (f + i) * h + i / (f + i) * c
        states[t] = h
    return (torch.stack(states) if steps else inputs[0].clone()), h


def everything(
    scan: Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]], inputs: list[Tensor], state: Tensor, seed: int = 9
) -> list[Tensor]:
    """h, last, and the gradient of all inputs and the state for a random loss on h and last."""
    leaves = [x.detach().clone().requires_grad_() for x in (*inputs, state)]
    h, last = scan(leaves[:-1], leaves[-1])
    generator = torch.Generator().manual_seed(seed)
    grads = [normal(generator, tuple(y.shape)).to(y.dtype) for y in (h, last)]
    found = torch.autograd.grad([h, last], leaves, grads, materialize_grads=True)
    return [h.detach(), last.detach(), *found]


def assert_same(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for number, (x, y) in enumerate(zip(found, wanted, strict=True)):
        error = (x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-9)
        assert error <= tolerance, f"tensor {number}: relative error {error:.2e}"


def differ(found: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-3) -> bool:
    return any((x - y).abs().max() > tolerance for x, y in zip(found, wanted, strict=True))


@every_case
def test_every_kernel_follows_the_equation(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    inputs, state, start = draw(scan)
    wanted = everything(lambda x, s: by_the_equation(scan, x, s, start, option), inputs, state)
    assert_same(everything(lambda x, s: scan(*x, s, start, **option), inputs, state), wanted, 1e-12)
    narrow = everything(lambda x, s: scan(*x, s, start, **option), [x.float() for x in inputs], state.float())
    assert {x.dtype for x in narrow} == {torch.float32}
    assert_same(narrow, wanted, 2e-6)

    without = everything(lambda x, s: scan(*x, s, None, **option), inputs, state)
    assert_same(without, everything(lambda x, s: by_the_equation(scan, x, s, None, option), inputs, state), 1e-12)
    assert differ(without, wanted)


@every_case
@pytest.mark.parametrize("shape", [(0, 3, 5), (1, 3, 5), (7, 1, 5), (7, 3, 1), (1, 1, 1), (4, 0, 5), (4, 3, 0)])
def test_axes_of_size_zero_and_one_are_ordinary(
    kernel: str, scan: Scan, option: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan, shape)
    wanted = everything(lambda x, s: by_the_equation(scan, x, s, start, option), inputs, state)
    assert_same(everything(lambda x, s: scan(*x, s, start, **option), inputs, state), wanted, 1e-12)
    if shape[0] == 0:
        assert torch.equal(scan(*inputs, state, start, **option)[1], state)


@forward_in_time
@pytest.mark.parametrize("steps", [[0], [3], [T - 1], [2, 3, 4], list(range(T))])
def test_a_reset_is_the_same_as_being_born_there(
    kernel: str, scan: Scan, option: dict[str, Any], steps: list[int]
) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, _ = draw(scan)
    start = torch.zeros(T, B, dtype=torch.bool)
    start[steps, 1] = True
    first = steps[-1]

    def tail(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        h, last = scan(*x, s, start, **option)
        return h[first:, 1], last[1]

    def born(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        h, last = scan(*[y[first:, 1:2] for y in x], 0 * s[1:2], None, **option)
        return h[:, 0], last[0]

    found = everything(tail, inputs, state)
    assert_same(found, everything(born, inputs, state), 1e-12)
    assert all(torch.equal(g[:first], torch.zeros_like(g[:first])) for g in found[2:-1]), "gradient crosses the start"
    assert not found[-1].any()
    neighbours = [0, 2]
    h, plain = scan(*inputs, state, start, **option)[0], scan(*inputs, state, None, **option)[0]
    assert torch.equal(h[:, neighbours], plain[:, neighbours])
    start = start.roll(1, dims=1)  # the reset of another row
    assert differ(everything(tail, inputs, state), found)


@forward_in_time
@pytest.mark.parametrize("cut", [0, 1, 4, T])
def test_a_sequence_is_the_sum_of_its_chunks(kernel: str, scan: Scan, option: dict[str, Any], cut: int) -> None:
    if interpreted(kernel) and cut in (0, T):
        pytest.skip("the interpreter is slow, and empty inputs have a test of their own")
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan)

    def chunks(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        early, middle = scan(*[y[:cut] for y in x], s, start[:cut], **option)
        late, last = scan(*[y[cut:] for y in x], middle, start[cut:], **option)
        return torch.cat([early, late]), last

    def forgetful(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        early, _ = scan(*[y[:4] for y in x], s, start[:4], **option)
        late, last = scan(*[y[4:] for y in x], s, start[4:], **option)
        return torch.cat([early, late]), last

    whole = everything(lambda x, s: scan(*x, s, start, **option), inputs, state)
    assert_same(everything(chunks, inputs, state), whole, 1e-12)
    assert differ(everything(forgetful, inputs, state), whole)


def test_reversed_is_forwards_on_the_flipped_sequence(kernel: str) -> None:
    inputs, state, start = draw(linear)
    h, last = linear(*[x.flip(0) for x in inputs], state, start.flip(0))
    backward = linear(*inputs, state, start, reverse=True)
    assert_same(list(backward), [h.flip(0), last], 1e-15)
    assert torch.equal(backward[0][0], backward[1])
    assert differ([backward[0]], [linear(*inputs, state, start)[0]])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(T, B), (T, B, 2, 4)])
def test_a_linear_scan_takes_any_axes_after_time_and_row(kernel: str, reverse: bool, shape: tuple[int, ...]) -> None:
    inputs, state, start = draw(linear, shape)
    option = {"reverse": reverse}
    wanted = everything(lambda x, s: by_the_equation(linear, x, s, start, option), inputs, state)
    assert_same(everything(lambda x, s: linear(*x, s, start, reverse=reverse), inputs, state), wanted, 1e-12)
    assert differ(list(linear(*inputs, state, reverse=reverse)), wanted[:2])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_decay_has_any_sign_and_may_be_nothing_or_one(kernel: str, reverse: bool) -> None:
    """At -1 and 1 nothing fades, so a sign that is lost anywhere shows in all that follows."""
    inputs, state, start = draw(linear)
    ends = torch.tensor([-1.0, -1.0, 0.0, 1.0], dtype=torch.float64)
    inputs[0] = ends[(inputs[1] * 1e6).long() % 4]
    wanted = everything(lambda x, s: by_the_equation(linear, x, s, start, {"reverse": reverse}), inputs, state)
    assert_same(everything(lambda x, s: linear(*x, s, start, reverse=reverse), inputs, state), wanted, 1e-12)
    assert differ(list(linear(inputs[0].abs(), inputs[1], state, start, reverse=reverse)), wanted[:2])

    flips = ends[(inputs[1] * 1e6).long() % 2 * 3].float()
    h, last = linear(flips, torch.zeros_like(flips), torch.ones_like(flips[0]), reverse=reverse)
    signs = flips.flip(0).cumprod(0).flip(0) if reverse else flips.cumprod(0)
    assert torch.equal(h, signs) and torch.equal(last, signs[0 if reverse else -1]) and (h == -1).any()


@every_case
@pytest.mark.parametrize("layout", ["columns", "batch first", "features first", "expanded"])
def test_the_layout_in_memory_does_not_matter(kernel: str, scan: Scan, option: dict[str, Any], layout: str) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan)

    def laid_out(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        if layout == "columns":
            x = list(torch.cat(x, dim=-1).chunk(len(x), dim=-1))
            assert not x[0].is_contiguous()
        elif layout == "batch first":
            x = [y.transpose(0, 1).contiguous().transpose(0, 1) for y in x]
        elif layout == "features first":
            x = [y.permute(2, 0, 1).contiguous().permute(1, 2, 0) for y in x]
            s = s.t().contiguous().t()
        else:
            x = [y[:, :1].expand(T, B, D) for y in x]
        flags = start.t().contiguous().t()
        return scan(*x, s, flags, **option)

    plain = [x[:, :1].expand(T, B, D).contiguous() for x in inputs] if layout == "expanded" else inputs
    wanted = by_the_equation(scan, plain, state, start, option)
    found = everything(laid_out, inputs, state)
    assert_same(found[:2], list(wanted), 1e-12)
    if layout != "expanded":
        assert_same(found, everything(lambda x, s: scan(*x, s, start, **option), inputs, state), 1e-12)


@every_case
def test_a_loss_on_one_output_alone_reaches_every_input(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan)
    for output in (0, 1):
        leaves = [x.clone().requires_grad_() for x in (*inputs, state)]
        found, wanted = (
            torch.autograd.grad(y[output].square().sum(), leaves, materialize_grads=True)
            for y in (
                scan(*leaves, start, **option),
                by_the_equation(scan, leaves[:-1], leaves[-1], start, option),
            )
        )
        assert_same(list(found), list(wanted), 1e-12)


@gated
@pytest.mark.parametrize("size", [20.0, 90.0, 1e4, float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gates_are_finite_and_reach_their_limit(
    kernel: str, scan: Scan, size: float, dtype: torch.dtype
) -> None:
    one_dtype_will_do(kernel, dtype)
    inputs, state, start = draw(scan, dtype=dtype)
    h_kept, h_written = (
        everything(lambda x, s: scan(*x, s, start), [torch.full_like(inputs[0], sign * size), *inputs[1:]], state)
        for sign in (-1, 1)
    )
    if scan is min_lstm:  # a wide open forget gate leaves the share of the input gate, a shut one leaves nothing
        wanted = by_the_equation(scan, [torch.full_like(inputs[0], size), *inputs[1:]], state, start, CASES[5][1])
        assert_same(h_written[:2], list(wanted), 1e-5)
        h_kept, h_written = (
            everything(
                lambda x, s: scan(*x, s, start), [inputs[0], torch.full_like(inputs[0], -size), inputs[2]], state
            ),
            h_kept,
        )
    assert all(torch.isfinite(x).all() for x in h_kept + h_written)
    kept = state * ~start.any(0)[:, None]
    tolerance = 1e-6 if size > 20 else 1e-5
    torch.testing.assert_close(h_kept[1], kept, atol=tolerance, rtol=0)
    torch.testing.assert_close(h_written[0], inputs[-1], atol=tolerance, rtol=0)
    assert differ([h_kept[1]], [h_written[1]])


def test_two_nearly_shut_lstm_gates_are_weighed_against_each_other(kernel: str) -> None:
    (_, _, v), state, _ = draw(min_lstm, dtype=torch.float32)
    shut = torch.full_like(v, -1e4)
    half = min_gru(torch.zeros_like(v), v, state)
    assert_same(list(min_lstm(shut, shut, v, state)), list(half), 1e-6)
    assert_same(list(min_lstm(shut, shut / 2, v, state)), [v, v[-1]], 1e-6)
    assert differ(list(min_lstm(shut / 2, shut, v, state)), list(half))


@forward_in_time
@pytest.mark.parametrize("poisoned", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_poisons_its_own_channel_until_the_next_start(
    kernel: str, scan: Scan, option: dict[str, Any], poisoned: int, dtype: torch.dtype
) -> None:
    one_dtype_will_do(kernel, dtype)
    one_activation_will_do(kernel, option)
    inputs, state, _ = draw(scan, dtype=dtype)
    start = torch.zeros(T, B, dtype=torch.bool)
    start[5, 1] = start[2, 1] = True
    inputs[poisoned][3, 1, 4] = float("nan")
    leaves = [x.clone().requires_grad_() for x in (*inputs, state)]
    h, last = scan(*leaves, start, **option)
    expected = torch.zeros(T, B, D, dtype=torch.bool)
    expected[3:5, 1, 4] = True
    assert torch.equal(h.isnan(), expected)
    assert not last.isnan().any()
    *grads, grad_state = torch.autograd.grad(h.nan_to_num().sum(), leaves)
    touched = torch.zeros(T, B, D, dtype=torch.bool)
    touched[2:5, 1, 4] = True
    assert not any((g.isnan() & ~touched).any() for g in grads)
    assert not grad_state.isnan().any()


@pytest.mark.parametrize("steps", [1, 2, 3, 31, 32, 33, 1000])
def test_a_long_memory_is_exact(kernel: str, steps: int) -> None:
    """Forgetting slowly is what hides an error in the carry from ordinary tests."""
    if interpreted(kernel) and steps == 1000:
        pytest.skip("the interpreter is slow, and 33 steps are several tiles")
    generator = torch.Generator().manual_seed(steps)
    gate = -10.5 + normal(generator, (steps, 2, 3)).tanh() * 3.5  # shares of 1e-6 to 1e-3
    candidate, state = normal(generator, (steps, 2, 3)), normal(generator, (2, 3))
    decayed = [1 - gate.sigmoid(), gate.sigmoid() * candidate]
    for scan, inputs in ((min_gru, [gate, candidate]), (linear, decayed)):
        option = {"activation": "identity"}
        found: list[Tensor] = []
        wanted: list[Tensor] = []
        for dtype, results in ((torch.float32, found), (torch.float64, wanted)):
            leaves = [x.to(dtype).requires_grad_() for x in (*inputs, state)]
            if dtype is torch.float32:
                last = scan(*leaves)[1]
            else:
                last = by_the_equation(scan, leaves[:-1], leaves[-1], None, option)[1]
            results += [last.detach(), *torch.autograd.grad(last.square().sum(), leaves)]
        assert_same(found, wanted, 3e-5)
    if steps == 1000:
        shorter = min_gru(*[x[1:].float() for x in (gate, candidate)], state.float())[1]
        assert differ([shorter], [min_gru(gate.float(), candidate.float(), state.float())[1]], 1e-7)


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_narrow_inputs_are_computed_in_float32(
    kernel: str, scan: Scan, option: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan, (T if interpreted(kernel) else 40, B, D), dtype=torch.float32)
    inputs = [x.to(dtype) for x in inputs]
    found = everything(lambda x, s: scan(*x, s, start, **option), inputs, state)
    wide = everything(lambda x, s: scan(*x, s, start, **option), [x.float() for x in inputs], state)
    assert [x.dtype for x in found] == [dtype, torch.float32, *[dtype] * len(inputs), torch.float32]
    if dtype is torch.float16 or not interpreted(kernel):  # the interpreter rounds to bfloat16 towards zero
        assert torch.equal(found[0], wide[0].to(dtype))
    assert torch.equal(found[1], wide[1])
    assert_same(found, wide, tolerance)


@every_case
def test_gradients_are_the_derivative(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    one_activation_will_do(kernel, option)
    inputs, state, start = draw(scan, (3, 1, 2) if interpreted(kernel) else (4, 2, 3))
    leaves = [x.requires_grad_() for x in (*inputs, state)]
    checks = {"fast_mode": True, "check_undefined_grad": False} if interpreted(kernel) else {}  # it is slow
    assert torch.autograd.gradcheck(lambda *x: scan(*x, start, **option), leaves, **checks)
    if interpreted(kernel):
        return
    other = ~start

    def mismatched(*x: Tensor) -> Tensor:  # values of one scan with gradients of another
        value, slope = scan(*x, start, **option)[0], scan(*x, other, **option)[0]
        return value.detach() + slope - slope.detach()

    assert not torch.autograd.gradcheck(mismatched, leaves, raise_exception=False)


@every_case
def test_gradients_can_be_differentiated_again(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    if interpreted(kernel) and scan is not linear:
        pytest.skip("the interpreter is slow, and the second derivative is made of linear scans")
    inputs, state, start = draw(scan, (3, 1, 2) if interpreted(kernel) else (4, 2, 3))
    leaves = [x.requires_grad_() for x in (*inputs, state)]
    assert torch.autograd.gradgradcheck(lambda *x: scan(*x, start, **option), leaves, fast_mode=True)
