"""Complex recurrences without complex numbers: the real scan, in a frame that turns with the memory."""

import torch
from torch import Tensor

from rlmin.scan.boundary import carry_dtype, check_float, check_start, check_tensors, full_precision
from rlmin.scan.ops import scan


def rotating_scan(
    decay: Tensor, phase: Tensor, value: Tensor, state: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Linear recurrence of complex numbers with resets; a number is a pair (real, imaginary) on the last axis.

        h[t] = decay[t] * exp(i * phase[t]) * h[t-1] + value[t]

    with h[-1] = state, and h[t-1] read as 0 where start[t]. Let angle[t] = phase[0] + ... + phase[t]. In the frame that
    turns along, u[t] = exp(-i * angle[t]) * h[t] has a real decay,

        u[t] = decay[t] * u[t-1] + exp(-i * angle[t]) * value[t]

    which is `linear_scan` over twice the channels. Angles are summed in float64 from the last start on; with a constant
    phase they are its multiples.

    Args:
        decay: float that broadcasts to [T, B, ...], such as [D] if it is constant: share of the past's magnitude that
            stays. Any value; stable if its magnitude is at most 1.
        phase: float that broadcasts to [T, B, ...]: turn of the past, in radians.
        value: [T, B, ..., 2] float, the new term.
        state: [B, ..., 2] float, the memory that enters step 0.
        start: [T, B] bool or None, the state that enters step t is replaced by 0.

    Returns:
        h: [T, B, ..., 2] in the dtype of `value`; last: [B, ..., 2] float32 or float64, the state after step T-1
        (`state` where T = 0). Gradients flow to decay, phase, value and state, twice differentiable.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Source: the complex diagonal recurrence of Orvieto et al. 2023 (arXiv:2303.06349).
    """
    _check(decay, phase, value, state, start)
    carry, unit = carry_dtype(value), value.shape[2:-1]
    T, B = value.shape[:2]
    with full_precision(value):
        whole = phase.view(*[1] * (2 + len(unit) - phase.dim()), *phase.shape)
        angle = _angle(whole, T, B, start).to(carry)
        cos, sin = angle.cos(), angle.sin()
        seen = _turn(cos, -sin, value.to(carry)).flatten(2)
        decay = torch.broadcast_to(decay.to(carry), (*decay.shape[: max(0, decay.dim() - len(unit))], *unit))
        pairs = decay.unsqueeze(-1).expand(*decay.shape, 2).flatten(-1 - len(unit))
        pairs = pairs.expand(T, B, *pairs.shape[-1:])
        u, _ = scan("linear", False, start, state.to(carry).flatten(1), pairs, seen)
        h = _turn(cos, sin, u.view(value.shape))
    return h.to(value.dtype), h[-1] if T else state.to(carry).clone()


def rotating_step(decay: Tensor, phase: Tensor, value: Tensor, state: Tensor) -> Tensor:
    """One step of `rotating_scan`, on [B, ..., 2]; nothing is checked, and the state is wiped already."""
    return _turn(phase.cos(), phase.sin(), state) * decay.unsqueeze(-1) + value


def _angle(phase: Tensor, T: int, B: int, start: Tensor | None) -> Tensor:
    """Float64 angle after each step, modulo 2 pi; [T, 1, ...] where the phase is the same at every step and row."""
    phase = phase.double()
    if len(phase) == 1:
        steps = torch.arange(1, T + 1, dtype=phase.dtype, device=phase.device)
        angle = steps.view(-1, *[1] * (phase.dim() - 1)) * phase
    else:
        unit = phase.shape[2:]
        phase = phase.expand(T, B, *unit).flatten(2) if unit else phase.expand(T, B)[..., None]
        if start is not None:
            phase = phase.masked_fill(
                start[..., None], 0
            )  # a part that does not turn gets no gradient, not one of 1e-16
        one, zero = phase.new_ones(phase.shape[2]), phase.new_zeros(phase.shape[1:])
        angle = scan("linear", False, start, zero, one.expand(phase.shape), phase)[0].view(T, B, *unit)
    return torch.remainder(angle, 2 * torch.pi)


def _turn(cos: Tensor, sin: Tensor, x: Tensor) -> Tensor:
    """(cos + i sin) * x, of pairs."""
    real, imaginary = x.unbind(-1)
    return torch.stack([cos * real - sin * imaginary, cos * imaginary + sin * real], -1)


def _check(decay: Tensor, phase: Tensor, value: Tensor, state: Tensor, start: Tensor | None) -> None:
    check_tensors(decay=decay, phase=phase, value=value, state=state)
    if value.dim() < 3 or value.shape[-1] != 2:
        found = list(value.shape)
        raise ValueError(f"value: expected [T, B, ..., 2], pairs (real, imaginary), got {found}; try view_as_real")
    for name, x in (("value", value), ("decay", decay), ("phase", phase), ("state", state)):
        check_float(name, x, value.dtype, value.device)
    for name, x in (("decay", decay), ("phase", phase)):
        if not _fits(x, value.shape[:-1]):
            wanted, found = list(value.shape[:-1]), list(x.shape)
            raise ValueError(
                f"{name}: expected {wanted}, each 1 where it is constant, or the last of them, got {found}"
            )
    if state.shape != value.shape[1:]:
        wanted, found = list(value.shape[1:]), list(state.shape)
        raise ValueError(f"state: expected {wanted} as value is {list(value.shape)}, got {found}")
    check_start(start, "value", value)


def _fits(x: Tensor, shape: torch.Size) -> bool:
    """Whether `x` broadcasts to `shape`."""
    if x.dim() > len(shape):
        return False
    ends = shape[len(shape) - x.dim() :]
    return all(own in (1, wanted) for own, wanted in zip(x.shape, ends, strict=True))
