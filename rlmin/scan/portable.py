"""Torch operations only, on any device: one `addcmul` or `lerp` per step into a buffer that is allocated once.

The loop runs over `unbind(0)` and never indexes inside autograd, whose backward would cost T times the memory
traffic. The backward pass is one linear scan in the other direction and a handful of elementwise operations.
"""

import torch
from torch import Tensor

from rlmin.scan.activation import activate
from rlmin.scan.gradients import Forward, as_kernel, lstm_gate


def linear_forward(
    decay: Tensor, value: Tensor, state: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """h[t] = decay[t] * h[t-1] + value[t]."""
    h = torch.empty(value.shape, dtype=state.dtype, device=value.device)
    steps = list(
        zip(decay.to(state.dtype).unbind(0), value.to(state.dtype).unbind(0), h.unbind(0), _cuts(start, h), strict=True)
    )
    carry = state
    for a, b, out, cut in reversed(steps) if reverse else steps:
        carry = carry if cut is None else carry.masked_fill(cut, 0)
        carry = torch.addcmul(b, a, carry, out=out)
    return h.to(value.dtype), carry.clone()


def gru_forward(
    gate: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = h[t-1] + sigmoid(gate[t]) * (c(candidate[t]) - h[t-1])."""
    z = torch.sigmoid(gate.to(state.dtype))
    c = activate(activation, candidate.to(state.dtype))
    h = torch.empty(candidate.shape, dtype=state.dtype, device=candidate.device)
    carry = state
    for weight, end, out, cut in zip(z.unbind(0), c.unbind(0), h.unbind(0), _cuts(start, h), strict=True):
        carry = carry if cut is None else carry.masked_fill(cut, 0)
        carry = torch.lerp(carry, end, weight, out=out)
    return h.to(candidate.dtype), carry.clone()


def lstm_forward(
    forget: Tensor, input: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = f' * h[t-1] + i' * c(candidate[t]), with f' = f / (f + i) and i' = i / (f + i)."""
    gate = lstm_gate(forget.to(state.dtype), input.to(state.dtype))
    return gru_forward(gate, candidate, state, start, activation)


def _cuts(start: Tensor | None, h: Tensor) -> list[Tensor] | list[None]:
    return [None] * h.shape[0] if start is None else list(start[..., None].unbind(0))


SCANS: dict[str, Forward] = {"linear": linear_forward, "gru": gru_forward, "lstm": lstm_forward}
forward, backward = as_kernel(SCANS)
