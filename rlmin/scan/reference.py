"""The definition: a Python loop of differentiable torch operations, one per line of the equation.

It is slow, and correct by inspection. Tests compare it and its gradients with the equations and with automatic
differentiation.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rlmin.scan.activation import activate
from rlmin.scan.gradients import Forward, as_kernel, lstm_gate


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


SCANS: dict[str, Forward] = {"linear": linear_forward, "gru": gru_forward, "lstm": lstm_forward}
forward, backward = as_kernel(SCANS)
