"""`rotating_scan` is the complex recurrence, as torch's complex numbers compute it one step at a time."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from test_scan import assert_same, differ, everything, normal
from torch import Tensor

from rlmin.scan import linear_scan, rotating_scan
from rlmin.scan.rotating import rotating_step

Scan: TypeAlias = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]
T, B, D = 7, 3, 5
SHAPES = {  # of decay and phase: constant or not, a share of them or all
    "data": ((T, B, D), (T, B, D)),
    "constant": ((D,), (D,)),
    "of a row": ((1, B, D), (1, B, 1)),
    "of a step": ((T, 1, 1), (T, 1, D)),
}
rotate: Callable[..., tuple[Tensor, Tensor]] = rotating_scan
every_shape = pytest.mark.parametrize("shape", SHAPES)


def draw(shape: str, *, steps: int = T) -> tuple[list[Tensor], Tensor, Tensor]:
    """[decay, phase, value], state and starts."""
    generator = torch.Generator().manual_seed(0)
    decay, phase = (normal(generator, tuple(steps if n == T else n for n in size)) for size in SHAPES[shape])
    start = torch.rand(steps, B, generator=generator) < 0.3
    value, state = normal(generator, (steps, B, D, 2)), normal(generator, (B, D, 2))
    return [decay.tanh(), 3 * phase, value], state, start


def run(start: Tensor | None) -> Scan:
    return lambda inputs, state: rotate(*inputs, state, start)


def by_complex_numbers(start: Tensor | None) -> Scan:
    def scan(inputs: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        decay, phase, value = inputs
        a = decay * torch.exp(1j * phase)
        a, h, hs = a.expand(value.shape[:-1]), torch.view_as_complex(state), []
        for t in range(len(value)):
            if start is not None:
                h = torch.where(start[t, :, None], 0, h)
            h = a[t] * h + torch.view_as_complex(value[t].contiguous())
            hs.append(h)
        return (torch.view_as_real(torch.stack(hs)) if hs else value), torch.view_as_real(h)

    return scan


@every_shape
def test_it_is_the_complex_recurrence(kernel: str, shape: str) -> None:
    inputs, state, start = draw(shape)
    if kernel.startswith("gpu") and shape != "data":
        pytest.skip("the interpreter is slow, and the frame is the same")
    wanted = everything(by_complex_numbers(start), inputs, state)
    assert_same(everything(run(start), inputs, state), wanted, 1e-12)
    assert_same(everything(run(start), [x.float() for x in inputs], state.float()), wanted, 5e-6)
    if kernel == "portable":
        every = torch.ones_like(start)
        for other in (None, every):
            alone = everything(by_complex_numbers(other), inputs, state)
            found = everything(run(other), inputs, state)
            torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-12)
            assert differ(alone, wanted)
            if other is every and shape in ("data", "of a step"):
                assert not found[3].any()


def test_without_a_turn_it_is_the_linear_scan() -> None:
    (decay, phase, value), state, start = draw("data")
    h, last = rotating_scan(decay, 0 * phase, value, state, start)
    pairs = decay[..., None].expand_as(value).contiguous()
    assert_same([h, last], list(linear_scan(pairs, value, state, start)), 1e-14)
    assert differ([h], [rotating_scan(decay, phase, value, state, start)[0]])


@pytest.mark.parametrize("kind", ["data", "constant"])
def test_angles_of_a_long_episode_are_exact(kind: str) -> None:
    inputs, state, _ = draw(kind, steps=1500)
    inputs[0] = 1 - 1e-3 * inputs[0].abs()
    single = [x.float() for x in inputs]  # the phase that float32 holds is the phase
    wanted = everything(by_complex_numbers(None), [x.double() for x in single], state.float().double())
    assert_same(everything(run(None), single, state.float()), wanted, 3e-5)
    lost = torch.polar(torch.ones(D), single[1].expand(1500, B, D)[:, 0].cumsum(0))  # angles summed in float32
    exact = torch.polar(torch.ones(D, dtype=torch.float64), inputs[1].expand(1500, B, D)[:, 0].cumsum(0))
    assert (lost - exact).abs().max() > 5e-6


@pytest.mark.parametrize("size", [(0, B, D), (1, B, D), (T, 1, 1), (T, 0, D), (T, B), (T, B, 2, 4)])
def test_any_axes_after_time_and_row(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = [normal(generator, size).tanh(), normal(generator, size), normal(generator, (*size, 2))]
    state, start = normal(generator, (*size[1:], 2)), torch.rand(size[:2], generator=generator) < 0.3
    unit = size[2:]

    def flat(x: list[Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
        wide = [y.reshape(*size[:2], -1) for y in x[:2]]
        channels = wide[0].shape[2] if x[0].numel() else max(1, *unit) if unit else 1
        pairs, before = x[2].reshape(*size[:2], channels, 2), s.reshape(size[1], channels, 2)
        h, last = by_complex_numbers(start)([*wide, pairs], before)
        return h.reshape(*size, 2), last.reshape(*size[1:], 2)

    if 0 not in size:
        assert_same(everything(run(start), inputs, state), everything(flat, inputs, state), 1e-12)
    h, last = run(start)(inputs, state)
    assert h.shape == (*size, 2) and last.shape == (*size[1:], 2)
    assert size[0] or torch.equal(last, state)


def test_constants_of_two_axes_are_for_each_step_and_row() -> None:
    generator = torch.Generator().manual_seed(1)
    decay, phase, value = normal(generator, (2, 1)).tanh(), normal(generator, (4,)), normal(generator, (T, B, 2, 4, 2))
    state, start = normal(generator, (B, 2, 4, 2)), torch.rand(T, B, generator=generator) < 0.3
    found = rotating_scan(decay, phase, value, state, start)
    whole = [decay.expand(T, B, 2, 4), phase.expand(T, B, 2, 4), value]
    assert_same(list(found), list(rotate(*whole, state, start)), 1e-12)


def test_a_step_is_a_step() -> None:
    (decay, phase, value), state, _ = draw("data")
    h, _ = rotating_scan(decay, phase, value, state)
    for t in range(T):
        state = rotating_step(decay[t], phase[t], value[t], state)
        torch.testing.assert_close(state, h[t])


def row(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return found[0][:, 1], found[1][1]


def test_a_reset_cuts_values_and_gradients_whatever_was_there() -> None:
    inputs, state, _ = draw("data")
    start = torch.zeros(T, B, dtype=torch.bool)
    start[3, 1] = True
    found = everything(lambda x, s: row(run(start)(x, s)), inputs, state)
    late = everything(
        lambda x, s: row(run(None)([y[3:] for y in x], 0 * s)),
        inputs,
        state,
    )
    torch.testing.assert_close(found[0][3:], late[0])
    torch.testing.assert_close(found[1], late[1])
    inputs[1][2, 1, 0] = torch.nan
    assert run(start)(inputs, state)[0].isnan().all(-1).nonzero().tolist() == [[2, 1, 0]]
    inputs[1][2, 1, 0] = 0
    poisoned, _ = rotate(*inputs, torch.full_like(state, torch.nan), start)
    torch.testing.assert_close(poisoned[3:, 1], found[0][3:])
    assert poisoned[:3].isnan().all()
    loss = run(start)(inputs := [x.requires_grad_() for x in inputs], state.requires_grad_())[0][3:, 1].sum()
    *grads, of_state = torch.autograd.grad(loss, [*inputs, state])
    assert not any(g[:3].any() for g in grads) and not of_state.any() and grads[2][3:, 1].any()


def test_gradients_are_the_derivative() -> None:
    generator = torch.Generator().manual_seed(2)
    leaves = [normal(generator, size).requires_grad_() for size in ((4, 2, 2), (2,), (4, 2, 2, 2), (2, 2, 2))]
    start = torch.tensor([[True, False], [False, False], [False, True], [False, False]])
    assert torch.autograd.gradcheck(lambda *x: rotate(*x, start), leaves)
    assert torch.autograd.gradgradcheck(lambda *x: rotate(*x, start), leaves, fast_mode=True)

    def mismatched(*x: Tensor) -> Tensor:  # values of one scan with gradients of another
        value, slope = rotate(*x, start)[0], rotate(*x, ~start)[0]
        return value.detach() + slope - slope.detach()

    assert not torch.autograd.gradcheck(mismatched, leaves, raise_exception=False)


def test_narrow_inputs_are_computed_in_float32() -> None:
    inputs, state, start = draw("data")
    narrow, state = [x.bfloat16() for x in inputs], state.float()
    h, last = rotate(*narrow, state, start)
    wide, wide_last = rotate(*[x.float() for x in narrow], state, start)
    assert h.dtype is torch.bfloat16 and torch.equal(h, wide.bfloat16()) and torch.equal(last, wide_last)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it itself
def test_torch_compile_sees_one_graph() -> None:
    inputs, state, start = draw("data")
    torch.compiler.reset()
    compiled: Any = torch.compile(run(start), backend="aot_eager", fullgraph=True)
    assert_same(everything(compiled, inputs, state), everything(run(start), inputs, state), 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.zeros(T, B, D)}, r"value: expected \[T, B, ..., 2\], pairs \(real, imaginary\), got"),
        ({"decay": torch.zeros(4)}, r"decay: expected \[7, 3, 5\], each 1 where it is constant, .*, got \[4\]"),
        ({"phase": torch.zeros(1, T, B, D)}, r"phase: expected \[7, 3, 5\], each 1"),
        ({"state": torch.zeros(B, D)}, r"state: expected \[3, 5, 2\]"),
        ({"state": torch.zeros(B, D, 2, dtype=torch.float64)}, "state: expected float64 for all or for none"),
        ({"decay": torch.zeros(D, dtype=torch.complex64)}, "decay: expected a float dtype"),
        ({"start": torch.zeros(B, T, dtype=torch.bool)}, r"start: expected \[T=7, B=3\] .* this looks like \[B, T\]"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    fitting: dict[str, Any] = {
        "decay": torch.zeros(D),
        "phase": torch.zeros(D),
        "value": torch.zeros(T, B, D, 2),
        "state": torch.zeros(B, D, 2),
    }
    rotating_scan(**fitting)
    with pytest.raises(ValueError, match=message):
        rotating_scan(**(fitting | change))
