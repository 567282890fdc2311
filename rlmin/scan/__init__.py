"""The recurrence h[t] = a[t] * h[t-1] + b[t], with an exact reset wherever an episode starts.

`rotating_scan` is its form for complex numbers, `outer_scan` the one for matrices. The other three share one contract,
which those two keep with axes of their own. Inputs are time-major, [T, B, D]; `state` [B, D] is the memory that enters
the first step; `start` [T, B] bool marks the steps before which the memory is wiped. A reset is exact: the state that
enters is replaced by 0, whatever it was, and no gradient passes. The scans return every state, `h`, and the one to
carry into the next call, `last`; gradients flow from both into every float argument.

The arithmetic and the carry are float32 (float64 for float64 inputs) in linear space. bfloat16 and float16 inputs are
read as they are; `h` comes back in their dtype, `last` stays float32.
"""

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlmin.checks import existing, old_names
from rlmin.scan.activation import ACTIVATIONS as ACTIVATIONS
from rlmin.scan.boundary import carry_dtype, check_float, check_start, check_tensors
from rlmin.scan.dispatch import KERNELS as KERNELS
from rlmin.scan.ops import Option, scan
from rlmin.scan.outer import outer_scan as outer_scan
from rlmin.scan.rotating import rotating_scan as rotating_scan


def linear_scan(
    decay: Tensor, value: Tensor, state: Tensor, start: Tensor | None = None, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Linear recurrence with resets, forwards or backwards in time.

        h[t] = decay[t] * h[t-1] + value[t]        with h[-1] = state, and h[t-1] read as 0 where start[t]
        h[t] = decay[t] * h[t+1] + value[t]        reversed: h[T] = state, and h[t+1] read as 0 where start[t]

    Discounted returns and generalised advantages are the reversed form, with [T, B] inputs and a [B] state.

    Args:
        decay: [T, B, ...] float, share of the past that stays. Any value; stable if its magnitude is at most 1.
        value: same shape and dtype family as `decay`, the new term.
        state: [B, ...] float, the memory that enters the first step taken (t = T-1 when reversed).
        start: [T, B] bool or None, the state that enters step t is replaced by 0.
        reverse: run from T-1 down to 0.

    Returns:
        h: [T, B, ...] in the dtype of `value`; last: [B, ...] float32 or float64, the state after the last step
        taken (`state` where T = 0). Gradients flow to decay, value and state, twice differentiable.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    _check({"decay": decay, "value": value}, state, start)
    if not isinstance(reverse, bool):
        raise ValueError(f"reverse: expected True or False, got {reverse!r:.60}")
    shape = value.shape
    if value.dim() != 3:
        decay, value, state = _three_axes(decay), _three_axes(value), _three_axes(state[None])[0]
    h, last = _run("linear", reverse, start, state, decay, value)
    return h.view(shape), last.view(shape[1:])


def min_gru_scan(
    gate: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None = None, *, activation: str = "identity"
) -> tuple[Tensor, Tensor]:
    """The minGRU recurrence, from pre-activations.

        h[t] = h[t-1] + sigmoid(gate[t]) * (c(candidate[t]) - h[t-1])        h[t-1] read as 0 where start[t]

    The difference form keeps its precision where the gate is nearly shut. Only `h` is stored for the backward pass,
    which recomputes the gates.

    Args:
        gate: [T, B, D] float, logit of the share of the memory that is overwritten. May be infinite.
        candidate: [T, B, D] float, what is written, before the activation c.
        state: [B, D] float, the memory that enters step 0.
        start: [T, B] bool or None, the state that enters step t is replaced by 0.
        activation: c, one of "identity", "tanh", "g" (x + 0.5 where x >= 0, sigmoid(x) elsewhere).

    Returns:
        h: [T, B, D] in the dtype of `candidate`; last: [B, D] float32 or float64, the state after step T-1
        (`state` where T = 0). Gradients flow to gate, candidate and state, twice differentiable.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or an unknown activation.

    Source: Feng et al. 2024, section 3.1 (arXiv:2410.01201). The paper trains in log space; this is linear space.
    """
    _check_activation(activation)
    _check({"gate": gate, "candidate": candidate}, state, start, activation)
    return _run("gru", activation, start, state, gate, candidate)


def min_lstm_scan(
    forget: Tensor,
    input: Tensor,
    candidate: Tensor,
    state: Tensor,
    start: Tensor | None = None,
    *,
    activation: str = "identity",
) -> tuple[Tensor, Tensor]:
    """The minLSTM recurrence with normalised gates, from pre-activations.

        f' = sigmoid(forget) / (sigmoid(forget) + sigmoid(input)),   i' = 1 - f'
        h[t] = f'[t] * h[t-1] + i'[t] * c(candidate[t])        h[t-1] read as 0 where start[t]

    Computed as sigmoid(softplus(-input) - softplus(-forget)), which has no quotient of two vanishing gates.

    Args:
        forget, input: [T, B, D] float, logits of the two gates. May be infinite, not both -inf at once.
        candidate: [T, B, D] float, what is written, before the activation c.
        state: [B, D] float, the memory that enters step 0.
        start: [T, B] bool or None, the state that enters step t is replaced by 0.
        activation: c, one of "identity", "tanh", "g" (x + 0.5 where x >= 0, sigmoid(x) elsewhere).

    Returns:
        h: [T, B, D] in the dtype of `candidate`; last: [B, D] float32 or float64, the state after step T-1
        (`state` where T = 0). Gradients flow to the three inputs and state, twice differentiable.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or an unknown activation.

    Source: Feng et al. 2024, section 3.2 (arXiv:2410.01201), with its normalised gates, which keep the size of the
    memory independent of the length. The paper trains in log space; this is linear space.
    """
    _check_activation(activation)
    _check({"forget": forget, "input": input, "candidate": candidate}, state, start, activation)
    return _run("lstm", activation, start, state, forget, input, candidate)


def warm_up(device: torch.device | str = "cpu", *, shape: tuple[int, int, int] = (1, 1, 1)) -> None:
    """Compile what the first update would compile: every float32 scan, forward and backward.

    It takes some seconds the first time, and a fraction of a second once the compiled code is cached on disk. On a GPU,
    call it before a CUDA graph is captured.

    Args:
        device: where the scans will run.
        shape: [T, B, D] of the update to come. It makes no difference on the CPU; on a GPU the size decides on the
            kernel.
    """
    device = existing(device)
    if (
        not isinstance(shape, tuple)
        or len(shape) != 3
        or not all(type(size) is int and 0 < size < 1 << 24 for size in shape)
    ):
        raise ValueError(f"shape: expected [T, B, D], three whole numbers of at least 1, got {shape!r:.60}")
    x = torch.zeros(shape, device=device, requires_grad=True)
    state = torch.zeros(shape[1:], device=device)
    start = torch.zeros(shape[:2], dtype=torch.bool, device=device)
    runs = chain(
        [linear_scan(x, x, state, start)],
        (min_gru_scan(x, x, state, start, activation=name) for name in ACTIVATIONS),
        (min_lstm_scan(x, x, x, state, start, activation=name) for name in ACTIVATIONS),
    )
    with torch.enable_grad():
        for h, _ in runs:
            torch.autograd.grad(h.sum(), x)


def _run(name: str, option: Option, start: Tensor | None, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    carry = carry_dtype(inputs[-1])
    return scan(name, option, start, state if state.dtype is carry else state.to(carry), *inputs)


def _three_axes(x: Tensor) -> Tensor:
    return x.unsqueeze(-1) if x.dim() == 2 else x.flatten(2)


def _check(inputs: dict[str, Tensor], state: Tensor, start: Tensor | None, activation: str | None = None) -> None:
    """Reject, by name, arguments that the kernels would misread."""
    check_tensors(**inputs, state=state)
    *others, (lead, value) = inputs.items()
    shape, dtype, device = value.shape, value.dtype, value.device
    axes = len(shape)
    if axes < 2 or (axes != 3 and activation is not None):
        wanted = "[T, B, ...]" if activation is None else "[T, B, D]"
        raise ValueError(f"{lead}: expected {wanted}, got {list(shape)}; one step is x[None]")
    for name, x in others:
        if x.shape != shape:
            raise ValueError(f"{name}: expected the shape of {lead}, {list(shape)}, got {list(x.shape)}")
        check_float(name, x, dtype, device)
    check_float(lead, value, dtype, device)
    check_float("state", state, dtype, device)
    if state.shape != shape[1:]:
        raise ValueError(f"state: expected {list(shape[1:])} as {lead} is {list(shape)}, got {list(state.shape)}")
    check_start(start, lead, value)


def _check_activation(activation: str) -> None:
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r:.60}")


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, warmup="warm_up")
