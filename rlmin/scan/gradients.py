"""Backward passes written as torch operations around one linear scan that runs the other way.

With keep[t] = dh[t]/dh[t-1], the gradient that reaches h[t] is itself a recurrence,

    g[t] = grad_h[t] + keep[t+1] * g[t+1]        (cut where start[t+1]),        g[T-1] += grad_last

and everything else is elementwise. The scan is an argument: the portable kernel passes its own, and the double
backward passes the differentiable one, so the formulas exist once.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlmin.scan.activation import Option, activate, slope


class Saved(NamedTuple):
    """Tensors that a backward pass reads besides the incoming gradients."""

    inputs: tuple[Tensor, ...]  # [T, B, D] each, those of the forward pass; for a linear scan without the value
    state: Tensor  # [B, D]
    start: Tensor | None  # [T, B] bool
    h: Tensor  # [T, B, D], every state


Forward = Callable[..., tuple[Tensor, Tensor]]
LinearScan = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor]]


def linear_backward(
    scan: LinearScan,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    decay: Tensor,
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of decay, value and state."""
    keep = decay.to(state.dtype)
    g, grad_state = _adjoint(scan, grad_h, grad_last, keep, state, start, reverse)
    grad_decay = g * entering(h, state, start, reverse)
    return grad_decay.to(decay.dtype), g.to(h.dtype), grad_state


def gru_backward(
    scan: LinearScan,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    gate: Tensor,
    candidate: Tensor,
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gate, candidate and state."""
    k, v = gate.to(state.dtype), candidate.to(state.dtype)
    z, keep = torch.sigmoid(k), torch.sigmoid(-k)
    g, grad_state = _adjoint(scan, grad_h, grad_last, keep, state, start, False)
    grad_gate = g * (activate(activation, v) - entering(h, state, start, False)) * (z * keep)
    grad_candidate = g * z * slope(activation, v)
    return grad_gate.to(gate.dtype), grad_candidate.to(candidate.dtype), grad_state


def lstm_backward(
    scan: LinearScan,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    forget: Tensor,
    input: Tensor,
    candidate: Tensor,
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of forget, input, candidate and state: minGRU's, through its gate."""
    f, i = forget.to(state.dtype), input.to(state.dtype)
    grad_gate, grad_candidate, grad_state = gru_backward(
        scan, grad_h, grad_last, lstm_gate(f, i), candidate, state, start, h, activation
    )
    grad_forget, grad_input = -grad_gate * torch.sigmoid(-f), grad_gate * torch.sigmoid(-i)
    return grad_forget.to(forget.dtype), grad_input.to(input.dtype), grad_candidate, grad_state


_BACKWARD: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "linear": linear_backward,
    "gru": gru_backward,
    "lstm": lstm_backward,
}


def backward(
    scan: LinearScan, name: str, grad_h: Tensor | None, grad_last: Tensor | None, saved: Saved, option: Option
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of scan `name` (including the value of the linear scan) and of the state."""
    inputs, state, start, h = saved
    return _BACKWARD[name](scan, grad_h, grad_last, *inputs, state, start, h, option)


def as_kernel(loops: Mapping[str, Forward]) -> tuple[Forward, Callable[..., tuple[Tensor, ...]]]:
    """The two functions of a kernel (see `dispatch.py`): a loop for each scan, and the formulas above around one."""

    def forward(
        name: str, inputs: tuple[Tensor, ...], state: Tensor, start: Tensor | None, option: Option
    ) -> tuple[Tensor, Tensor]:
        return loops[name](*inputs, state, start, option)

    return forward, partial(backward, loops["linear"])


def lstm_gate(forget: Tensor, input: Tensor) -> Tensor:
    """The minGRU gate k of a minLSTM: sigmoid(k) = i / (f + i), with f and i the sigmoids of the arguments."""
    return F.softplus(-forget) - F.softplus(-input)


def entering(h: Tensor, state: Tensor, start: Tensor | None, reverse: bool) -> Tensor:
    """The state that enters each step: h one step earlier, `state` at the first, 0 where `start`."""
    past = h.to(state.dtype)
    before = torch.cat([past[1:], state[None]]) if reverse else torch.cat([state[None], past[:-1]])
    before = before[: h.shape[0]]
    return before if start is None else before.masked_fill(start[..., None], 0)


def _adjoint(
    scan: LinearScan,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    keep: Tensor,
    state: Tensor,
    start: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """The gradient g at each h[t], and the one that reaches the initial state."""
    grad_last = torch.zeros_like(state) if grad_last is None else grad_last.to(state.dtype)
    if keep.shape[0] == 0:
        return torch.zeros_like(keep), grad_last.clone()
    grad_h = torch.zeros_like(keep) if grad_h is None else grad_h.to(state.dtype)
    later_keep = _one_later(keep, 1, reverse)
    later_start = None if start is None else _one_later(start, False, reverse)
    g, first = scan(later_keep, grad_h, grad_last, later_start, not reverse)
    at = -1 if reverse else 0
    grad_state = keep[at] * first
    return g, grad_state if start is None else grad_state.masked_fill(start[at][..., None], 0)


def _one_later(x: Tensor, fill: float, reverse: bool) -> Tensor:
    """x[t+1] in the order of the scan, `fill` after its end."""
    end = torch.full_like(x[:1], fill)
    return torch.cat([end, x[:-1]]) if reverse else torch.cat([x[1:], end])
