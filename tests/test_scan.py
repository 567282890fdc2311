"""A scan is its equation, applied once per step, with the state that enters set to 0 wherever an episode starts.

Every kernel is held to that: values, and the gradients of every input, through every state and through the last one.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from torch import Tensor

from rlmin.scan import ACTIVATIONS, KERNELS, linear_scan, min_gru_scan, min_lstm_scan, warmup

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


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RLMIN_KERNEL", request.param)
    return str(request.param)


def draw(
    scan: Scan, shape: tuple[int, ...] = (T, B, D), seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, state and some starts; a linear scan gets decays that neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3 if scan is min_lstm else 2)]
    if scan is linear:
        inputs[0] = torch.tanh(inputs[0])
    state = torch.randn(shape[1:], generator=generator, dtype=dtype)
    start = torch.rand(shape[:2], generator=generator) < 0.3
    return inputs, state, start


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
    grads = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in (h, last)]
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


@every_case
@pytest.mark.parametrize("layout", ["columns", "batch first", "features first", "expanded"])
def test_the_layout_in_memory_does_not_matter(kernel: str, scan: Scan, option: dict[str, Any], layout: str) -> None:
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
    generator = torch.Generator().manual_seed(steps)
    gate = -14 + 7 * torch.rand((steps, 2, 3), generator=generator, dtype=torch.float64)  # shares of 1e-6 to 1e-3
    candidate, state = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((steps, 2, 3), (2, 3))
    )
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
    inputs, state, start = draw(scan, (40, B, D), dtype=torch.float32)
    inputs = [x.to(dtype) for x in inputs]
    found = everything(lambda x, s: scan(*x, s, start, **option), inputs, state)
    wide = everything(lambda x, s: scan(*x, s, start, **option), [x.float() for x in inputs], state)
    assert [x.dtype for x in found] == [dtype, torch.float32, *[dtype] * len(inputs), torch.float32]
    assert torch.equal(found[0], wide[0].to(dtype))
    assert torch.equal(found[1], wide[1])
    assert_same(found, wide, tolerance)


@every_case
def test_gradients_are_the_derivative(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    inputs, state, start = draw(scan, (4, 2, 3))
    leaves = [x.requires_grad_() for x in (*inputs, state)]
    assert torch.autograd.gradcheck(lambda *x: scan(*x, start, **option), leaves)
    other = ~start

    def mismatched(*x: Tensor) -> Tensor:  # values of one scan with gradients of another
        value, slope = scan(*x, start, **option)[0], scan(*x, other, **option)[0]
        return value.detach() + slope - slope.detach()

    assert not torch.autograd.gradcheck(mismatched, leaves, raise_exception=False)


@every_case
def test_gradients_can_be_differentiated_again(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    inputs, state, start = draw(scan, (4, 2, 3))
    leaves = [x.requires_grad_() for x in (*inputs, state)]
    assert torch.autograd.gradgradcheck(lambda *x: scan(*x, start, **option), leaves, fast_mode=True)


@every_case
def test_the_operators_keep_their_contract_with_torch(kernel: str, scan: Scan, option: dict[str, Any]) -> None:
    name = {linear: "linear", min_gru: "gru", min_lstm: "lstm"}[scan]
    forward, backward = (getattr(torch.ops.rlmin, f"{name}_{way}").default for way in ("forward", "backward"))
    inputs, state, start = draw(scan, dtype=torch.float32)
    inputs[0] = inputs[0].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    value = next(iter(option.values()))
    h, last = forward(*inputs, state, start, value)
    kept = inputs[:1] if scan is linear else inputs
    for flags in (start, None):
        torch.library.opcheck(forward, (*inputs, state, flags, value))
        for grads in ((h, last), (h, None), (None, last)):
            torch.library.opcheck(backward, (*grads, *kept, state, flags, h, value))


@every_case
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it itself
def test_torch_compile_sees_one_graph(scan: Scan, option: dict[str, Any]) -> None:
    def run(x: list[Tensor], s: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        return scan(*x, s, start, **option)

    torch.compiler.reset()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((T, B, D), (4, 6, 8)):
        inputs, state, start = draw(scan, shape, dtype=torch.float32)
        wanted = everything(partial(run, start=start), inputs, state)
        assert_same(everything(partial(compiled, start=start), inputs, state), wanted, 1e-6)
        with torch.no_grad():
            assert_same(list(compiled(inputs, state, start)), wanted[:2], 1e-6)


def test_autocast_leaves_the_state_in_float32(kernel: str) -> None:
    torch.manual_seed(0)
    projection, x = torch.nn.Linear(4, 2 * D), torch.randn(T, B, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gate, candidate = projection(x).chunk(2, dim=-1)
        h, last = min_gru(gate, candidate, torch.zeros(B, D))
    assert (h.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    (grad,) = torch.autograd.grad(last.sum(), [projection.weight])
    assert grad.dtype is torch.float32
    exact = min_gru(*projection(x).chunk(2, dim=-1), torch.zeros(B, D))[1]
    assert_same([last], [exact], 2e-2)
    assert differ([last], [exact], 1e-6)


def peer(module: torch.nn.Module, rows: int) -> tuple[torch.nn.Module, list[Tensor], Tensor]:
    """`module` in float64, the logits it computes in its own order of rows, and its input, batch first."""
    module = module.double()
    x = torch.randn(B, 128, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (weight,) = module.parameters()
    return module, list((x @ weight.detach().t()).transpose(0, 1).chunk(rows, dim=-1)), x


def test_min_gru_agrees_with_the_minGRU_pytorch_package(kernel: str) -> None:
    torch.manual_seed(0)
    module, (hidden, gate), x = peer(minGRU(D), 2)
    state = torch.rand(B, D, dtype=torch.float64) + 0.1
    for before, carried in ((torch.zeros_like(state), None), (state, state[:, None])):
        wanted, last = module(x, carried, return_next_prev_hidden=True)
        found = min_gru(gate, hidden, before, activation="g")
        assert_same(list(found), [wanted.transpose(0, 1).detach(), last[:, 0].detach()], 1e-10)
        assert differ(list(min_gru(gate, hidden, before, activation="tanh")), list(found))
    step = module(x[:, :1], state[:, None])[:, 0].detach()
    assert_same([min_gru(gate[:1], hidden[:1], state, activation="g")[1]], [step], 1e-12)


def test_min_lstm_agrees_with_the_minGRU_pytorch_package_from_an_empty_memory(kernel: str) -> None:
    torch.manual_seed(0)
    module, (hidden, forget, input), x = peer(minLSTM(D), 3)
    empty = torch.zeros(B, D, dtype=torch.float64)
    wanted = module(x).transpose(0, 1).detach()
    assert_same([min_lstm(forget, input, hidden, empty, activation="g")[0]], [wanted], 1e-10)
    # From a memory it does not: version 0.2.1 applies log g to a state that is past g already, and so is not the
    # continuation of itself.
    state = torch.rand(B, D, dtype=torch.float64) + 0.1
    found = min_lstm(forget, input, hidden, state, activation="g")[0]
    assert differ([module(x, state[:, None]).transpose(0, 1).detach()], [found])


def log_space(inputs: list[Tensor], state: Tensor, keep: Tensor) -> Tensor:
    """The form the paper trains with, for positive states: exp(a* + logcumsumexp(log b - a*)), a* = cumsum(log a)."""
    gate, candidate = inputs
    log_keep = F.pad((keep * gate.neg().sigmoid()).log(), (0, 0, 0, 0, 1, 0)).cumsum(0)
    written = F.logsigmoid(gate) + torch.where(candidate >= 0, candidate.relu() + 0.5, candidate.sigmoid()).log()
    values = torch.cat([state.log()[None], written])
    return (log_keep + (values - log_keep).logcumsumexp(0))[1:].exp()


def test_the_log_space_form_agrees_and_cannot_reset(kernel: str) -> None:
    (gate, candidate), state, _ = draw(min_gru)
    state, keep = state.abs() + 0.1, torch.ones(T, B, 1, dtype=torch.float64)
    wanted = everything(lambda x, s: (y := log_space(x, s, keep), y[-1]), [gate, candidate], state)
    found = everything(lambda x, s: min_gru(*x, s, activation="g"), [gate, candidate], state)
    assert_same(found, wanted, 1e-11)
    keep[3, 1] = 0
    assert log_space([gate, candidate], state, keep)[3:, 1].isnan().all()


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlmin.scan import cpu

    inputs, state, start = draw(min_gru, (9, 11, 5), dtype=torch.float32)
    alone = everything(lambda x, s: min_gru(*x, s, start), inputs, state)
    monkeypatch.setattr(cpu, "_PARALLEL_SIZE", 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for _ in range(2):
            together = everything(lambda x, s: min_gru(*x, s, start), inputs, state)
            assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))
            cpu._forget_threads()  # what a forked child does
    finally:
        torch.set_num_threads(threads)


def test_without_numba_the_portable_kernel_runs_and_says_so_once() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import warnings, torch; from rlmin.scan import linear_scan\n"
        "x = torch.ones(3, 1)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    print([linear_scan(x, x, x[0])[1].item() for _ in range(2)], len(caught), caught[0].message)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RLMIN_KERNEL"}
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.startswith("[4.0, 4.0] 1 rlmin.scan: numba is not usable"), done.stdout + done.stderr


def test_an_unknown_kernel_is_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMIN_KERNEL", "cuda")
    x = torch.zeros(T, B, D)
    with pytest.raises(ValueError, match="RLMIN_KERNEL: expected one of reference, portable, cpu, got 'cuda'"):
        linear(x, x, x[0])


def test_a_forced_kernel_refuses_tensors_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLMIN_KERNEL", "cpu")
    with pytest.raises(ValueError, match="RLMIN_KERNEL=cpu: expected CPU tensors, got meta"):
        from rlmin.scan.dispatch import kernel_for

        kernel_for(torch.device("meta"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": torch.zeros(T, B, 4)}, r"gate: expected the shape of candidate, \[7, 3, 5\], got \[7, 3, 4\]"),
        ({"candidate": torch.zeros(B, D), "gate": torch.zeros(B, D)}, r"candidate: expected \[T, B, D\], got \[3, 5\]"),
        ({"state": torch.zeros(T, D)}, r"state: expected \[3, 5\] as candidate is \[7, 3, 5\], got \[7, 5\]"),
        ({"start": torch.zeros(B, T, dtype=torch.bool)}, r"start: expected \[T=7, B=3\] .* this looks like \[B, T\]"),
        ({"start": torch.zeros(T, B)}, r"start: expected bool, got torch.float32"),
        ({"gate": torch.zeros(T, B, D, dtype=torch.int64)}, "gate: expected a float dtype, got torch.int64"),
        ({"state": torch.zeros(B, D, dtype=torch.float64)}, "state: expected float64 for all or for none"),
        ({"activation": "relu"}, "activation: expected one of identity, tanh, g, got 'relu'"),
        ({"state": torch.zeros(B, D, device="meta")}, "state: expected device cpu, got meta"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "gate": torch.zeros(T, B, D),
        "candidate": torch.zeros(T, B, D),
        "state": torch.zeros(B, D),
    }
    min_gru(**fitting)
    with pytest.raises(ValueError, match=message):
        min_gru(**(fitting | change))


def test_warming_up_leaves_nothing_to_compile_for_float32() -> None:
    from rlmin.scan import cpu_loops

    warmup()
    loops: list[Any] = [cpu_loops.linear_forward, cpu_loops.linear_backward]
    for family in (cpu_loops.GRU_FORWARD, cpu_loops.GRU_BACKWARD, cpu_loops.LSTM_FORWARD, cpu_loops.LSTM_BACKWARD):
        loops += family.values()
    before = [len(loop.signatures) for loop in loops]
    assert all(before)
    for scan, option in CASES:
        inputs, state, start = draw(scan, dtype=torch.float32)
        for flags in (start, None):
            h, _ = scan(*[x.requires_grad_() for x in inputs], state, flags, **option)
            torch.autograd.grad(h.sum(), inputs)
    assert [len(loop.signatures) for loop in loops] == before
