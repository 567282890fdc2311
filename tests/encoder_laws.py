"""The laws of the encoder contract, each a function that an encoder passes or that raises AssertionError.

On values and on gradients with respect to inputs, memory and weights; `test_encoders.py` breaks each.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from rlmin.encoders import Encoder
from rlmin.types import State, map_state

Law: TypeAlias = Callable[[Encoder], None]
T, B = 10, 5
EARLIER = 6  # steps that made the memory at the beginning

never = torch.zeros(T, B, dtype=torch.bool)
sometimes = never.clone()
for row, steps in enumerate([[0, 6], [4, 5], [T - 1], list(range(T)), []]):  # some, all and no steps open an episode
    sometimes[steps, row] = True


def random(*size: int, seed: int) -> Tensor:
    draw = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return draw.requires_grad_()


def inputs(encoder: Encoder) -> tuple[Tensor, State]:
    """x and a memory that is not zero, leaves for gradients."""
    _, state = encoder(random(EARLIER, B, encoder.input_size, seed=2), encoder.initial_state(B), never[:EARLIER])
    state = map_state(lambda part: part.detach().clone().requires_grad_(), state)
    return random(T, B, encoder.input_size, seed=1), state


def leaves(state: State) -> list[Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


def flat(result: tuple[Tensor, State]) -> list[Tensor]:
    return [result[0], *leaves(result[1])]


def gradients(outputs: list[Tensor], wrt: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of a sum in which every element of `outputs` has a weight of its own."""
    total = sum((t * torch.arange(1.0, t.numel() + 1).view(t.shape).cos()).sum() for t in outputs)
    assert isinstance(total, Tensor)
    if not total.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in wrt)
    return torch.autograd.grad(total, wrt, retain_graph=True, allow_unused=True, materialize_grads=True)


def assert_same(got: list[Tensor], want: list[Tensor], wrt: list[Tensor]) -> None:
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, wrt), gradients(want, wrt))


def in_chunks(encoder: Encoder, x: Tensor, state: State, start: Tensor, sizes: list[int]) -> tuple[Tensor, State]:
    parts = []
    for size in sizes:
        y, state = encoder(x[:size], state, start[:size])
        x, start = x[size:], start[size:]
        parts.append(y)
    return torch.cat(parts), state


def step_by_step_equals_one_pass(encoder: Encoder) -> None:
    x, before = inputs(encoder)
    ys, state = [], before
    for t in range(T):
        y, state = encoder.step(x[t], state, sometimes[t])
        ys.append(y)
    want = encoder(x, before, sometimes)
    assert_same(flat((torch.stack(ys), state)), flat(want), [x, *leaves(before), *encoder.parameters()])


def one_pass_equals_any_split(encoder: Encoder) -> None:
    x, before = inputs(encoder)
    want = flat(encoder(x, before, sometimes))
    for sizes in ([3, 4, 3], [1, 8, 1]):
        got = in_chunks(encoder, x, before, sometimes, sizes)
        assert_same(flat(got), want, [x, *leaves(before), *encoder.parameters()])


def a_reset_is_the_same_as_being_born_there(encoder: Encoder) -> None:
    x, before = inputs(encoder)
    for times in ([0], [4], [T - 1], [4, 5]):
        start, born = never.clone(), times[-1]
        start[times, 1] = True
        y, last = encoder(x, before, start)
        newborn, last_newborn = encoder(x[born:], encoder.initial_state(B), never[born:])
        got = [y[born:, 1], *(leaf[1] for leaf in leaves(last))]
        want = [newborn[:, 1], *(leaf[1] for leaf in leaves(last_newborn))]
        assert_same(got, want, [x, *leaves(before), *encoder.parameters()])


def rows_do_not_mix(encoder: Encoder) -> None:
    x, before = inputs(encoder)
    others, row = [0, 2, 3, 4], torch.tensor([1])
    other_x = x.index_add(1, row, torch.full((T, 1, x.shape[2]), 10.0, dtype=x.dtype))
    other_state = map_state(lambda part: part.index_fill(0, row, -3.0), before)
    start = sometimes.index_fill(1, torch.tensor([3]), False)  # else every step would open an episode somewhere
    other_start = start.index_fill(1, row, False)
    y, last = encoder(x, before, start)
    changed, last_changed = encoder(other_x, other_state, other_start)
    got = [changed[:, others], *(leaf[others] for leaf in leaves(last_changed))]
    want = [y[:, others], *(leaf[others] for leaf in leaves(last))]
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    dx, *dstate = gradients(want, [x, *leaves(before)])
    assert not dx[:, 1].any() and not any(part[1].any() for part in dstate)


def the_past_never_sees_the_future(encoder: Encoder) -> None:
    x, before = inputs(encoder)
    other_start = sometimes.clone()
    other_start[7:] = ~other_start[7:]
    y, _ = encoder(x, before, sometimes)
    changed, _ = encoder(torch.cat([x[:7], x[7:] + 10]), before, other_start)
    torch.testing.assert_close(y[:7], changed[:7], rtol=0, atol=0)
    assert not torch.allclose(y[7:], changed[7:])
    assert not gradients([y[:7]], [x])[0][7:].any()


LAWS: list[Law] = [
    step_by_step_equals_one_pass,
    one_pass_equals_any_split,
    a_reset_is_the_same_as_being_born_there,
    rows_do_not_mix,
    the_past_never_sees_the_future,
]
