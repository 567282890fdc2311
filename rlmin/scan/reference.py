"""The definition: a Python loop of differentiable torch operations, one per line of the equation.

Slow, and right by inspection. The backward of the gated scans is autograd through the loop, so it shares nothing
with the formulas of the other kernels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlmin.scan.activation import activate
from rlmin.scan.gradients import entering, lstm_gate


def linear_forward(
    decay: Tensor, value: Tensor, state: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """h[t] = decay[t] * h[t-1] + value[t]."""
    steps = list(zip(decay.to(state.dtype), value.to(state.dtype), strict=True))
    return _loop(lambda h, t: steps[t][0] * h + steps[t][1], value, state, start, reverse)


def gru_forward(
    gate: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = h[t-1] + sigmoid(gate[t]) * (c(candidate[t]) - h[t-1])."""
    z = torch.sigmoid(gate.to(state.dtype))
    c = activate(activation, candidate.to(state.dtype))
    steps = list(zip(z, c, strict=True))
    return _loop(lambda h, t: h + steps[t][0] * (steps[t][1] - h), candidate, state, start, False)


def lstm_forward(
    forget: Tensor, input: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = f' * h[t-1] + i' * c(candidate[t]), with f' = f / (f + i) and i' = i / (f + i)."""
    gate = lstm_gate(forget.to(state.dtype), input.to(state.dtype))
    return gru_forward(gate, candidate, state, start, activation)


def _loop(
    step: Callable[[Tensor, int], Tensor], like: Tensor, state: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    T = like.shape[0]
    states = [state] * T
    h = state
    for t in reversed(range(T)) if reverse else range(T):
        if start is not None:
            h = torch.where(start[t][:, None], torch.zeros_like(h), h)
        h = states[t] = step(h, t)
    if T == 0:
        return torch.empty_like(like), state.clone()
    return torch.stack(states).to(like.dtype), h.clone()


def linear_backward(
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    decay: Tensor,
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of decay, value and state."""
    a, past = decay.to(state.dtype), entering(h, state, start, reverse)
    grad_h = torch.zeros_like(past) if grad_h is None else grad_h.to(state.dtype)
    carry = torch.zeros_like(state) if grad_last is None else grad_last.to(state.dtype)
    grad_decay, grad_value = torch.empty_like(past), torch.empty_like(past)
    for t in range(len(h)) if reverse else reversed(range(len(h))):
        carry = grad_h[t] + carry
        grad_value[t] = carry
        grad_decay[t] = carry * past[t]
        carry = a[t] * carry
        if start is not None:
            carry = torch.where(start[t][:, None], torch.zeros_like(carry), carry)
    return grad_decay.to(decay.dtype), grad_value.to(h.dtype), carry.clone()


def gru_backward(
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
    grads = _autograd(
        lambda k, v, s: gru_forward(k, v, s, start, activation), (gate, candidate, state), grad_h, grad_last
    )
    return grads[0], grads[1], grads[2]


def lstm_backward(
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
    """Gradients of forget, input, candidate and state."""
    grads = _autograd(
        lambda f, i, v, s: lstm_forward(f, i, v, s, start, activation),
        (forget, input, candidate, state),
        grad_h,
        grad_last,
    )
    return grads[0], grads[1], grads[2], grads[3]


def _autograd(
    forward: Callable[..., tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor],
    grad_h: Tensor | None,
    grad_last: Tensor | None,
) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = forward(*leaves)
        pairs = [(y, g) for y, g in zip(outputs, (grad_h, grad_last), strict=True) if g is not None and y.requires_grad]
        grads = torch.autograd.grad([y for y, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
    return [torch.zeros_like(x) if g is None else g.contiguous() for x, g in zip(leaves, grads, strict=True)]
