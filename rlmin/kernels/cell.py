"""A projection and the scan of its columns as one differentiable function: a minGRU or minLSTM on the CPU.

Separately, the gradients of the columns are written to memory, joined, and read three times. Here the backward pass
takes a few steps at a time, so the gradient of the projection stays in cache between the loop that computes it and the
products that use it, and is never stored as a whole.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from rlmin.scan import min_gru_scan, min_lstm_scan
from rlmin.scan.cpu import backward_into, forward_into
from rlmin.scan.cpu_memory import empty

_SCANS: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {2: min_gru_scan, 3: min_lstm_scan}
_NAMES = {2: "gru", 3: "lstm"}
_CACHED_BYTES = 1 << 21  # of the projection, or of its gradient, per piece


def projected_scan(
    x: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor, *, activation: str
) -> tuple[Tensor, Tensor]:
    """min_gru_scan or min_lstm_scan of the columns of x @ weight.T + bias.

    Args:
        x: [T, B, D] float32 or float64, on the CPU like all arguments.
        state: [B, H] in the dtype of x, the memory that enters step 0.
        start: [T, B] bool, the state that enters step t is replaced by 0.
        weight, bias: [2H, D] and [2H], rows [gate; candidate], or [3H, D] and [3H], rows [forget; input; candidate].
        activation: of the candidate.

    Returns:
        h: [T, B, H]; last: [B, H]. Gradients flow to x, state, weight and bias, twice differentiable.
    """
    wanted = (x, state, weight, bias)
    if torch.is_grad_enabled() and any(y.requires_grad for y in wanted):
        h, last = _Cell.apply(x, state, start, weight, bias, activation)  # type: ignore[no-untyped-call]
        return h, last
    h, last, _ = _forward(x, state, start, weight, bias, activation, keep=False)
    return h, last


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor, activation: str
    ) -> tuple[Tensor, Tensor]:
        h, last, projected = _forward(x, state, start, weight, bias, activation, keep=True)
        ctx.activation = activation
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, state, start, weight, bias, h, projected)
        return h, last

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        x, state, start, weight, bias, h, projected = ctx.saved_tensors
        if torch.is_grad_enabled():
            grads = _differentiable(ctx, (x, state, weight, bias), start, grad_h, grad_last)
        else:
            grads = _backward(ctx, grad_h, grad_last, x, state, start, weight, h, projected)
        grad_x, grad_state, grad_weight, grad_bias = grads
        return grad_x, grad_state, None, grad_weight, grad_bias, None


def _forward(
    x: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor, activation: str, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """h, last, and the projection if it is kept."""
    T, B, D = x.shape
    H = state.shape[1]
    parts = weight.shape[0] // H
    piece = _steps(T, B, weight)
    h = empty(T, B, H, dtype=x.dtype)
    projected = empty(T if keep else min(piece, T), B, parts * H, dtype=x.dtype)
    flat, rows, transposed = x.reshape(T * B, D), projected.view(-1, parts * H), weight.t()
    last = state.clone(memory_format=torch.contiguous_format)
    for t in range(0, T, piece):
        end = min(t + piece, T)
        at, to = (t, end) if keep else (0, end - t)
        torch.addmm(bias, flat[t * B : end * B], transposed, out=rows[at * B : to * B])
        forward_into(
            f"{_NAMES[parts]}_forward", activation, projected[at:to].chunk(parts, -1), start[t:end], h[t:end], last
        )
    return h, last, projected


def _backward(
    ctx: Any,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    state: Tensor,
    start: Tensor,
    weight: Tensor,
    h: Tensor,
    projected: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, state, weight and bias, computed from the last steps to the first."""
    T, B, D = x.shape
    H = state.shape[1]
    parts = weight.shape[0] // H
    piece = _steps(T, B, weight)
    need_x, _, _, need_weight, need_bias, _ = ctx.needs_input_grad
    grad = empty(min(piece, T), B, parts * H, dtype=x.dtype)
    flat = x.reshape(T * B, D)
    grad_x = empty(T, B, D, dtype=x.dtype) if need_x else None
    grad_weight = torch.zeros_like(weight) if need_weight else None
    grad_bias = torch.zeros_like(weight[:, 0]) if need_bias else None
    carry = torch.zeros_like(state, memory_format=torch.contiguous_format)
    if grad_last is not None:
        carry.copy_(grad_last)
    for end in range(T, 0, -piece):
        t = max(0, end - piece)
        these = grad[: end - t]
        backward_into(
            f"{_NAMES[parts]}_backward",
            ctx.activation,
            None if grad_h is None else grad_h[t:end],
            projected[t:end].chunk(parts, -1),
            h[t - 1] if t else state,
            start[t:end],
            h[t:end],
            these.chunk(parts, -1),
            carry,
        )
        rows = these.view(-1, parts * H)
        if grad_x is not None:
            torch.mm(rows, weight, out=grad_x[t:end].view(-1, D))
        if grad_weight is not None:
            grad_weight.addmm_(rows.t(), flat[t * B : end * B])
        if grad_bias is not None:
            grad_bias += rows.sum(0)
    return grad_x, carry, grad_weight, grad_bias


def _steps(T: int, B: int, weight: Tensor) -> int:
    """Number of time steps in a piece."""
    return max(1, _CACHED_BYTES // max(1, B * weight.shape[0] * weight.element_size()))


def _differentiable(
    ctx: Any, inputs: tuple[Tensor, ...], start: Tensor, grad_h: Tensor | None, grad_last: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The same gradients, from operations that can be differentiated again."""
    x, state, weight, bias = inputs
    parts = weight.shape[0] // state.shape[1]
    h, last = _SCANS[parts](*linear(x, weight, bias).chunk(parts, -1), state, start, activation=ctx.activation)
    outputs = [(y, g) for y, g in ((h, grad_h), (last, grad_last)) if g is not None]
    wanted = [y for y in inputs if y.requires_grad]
    found = iter(
        torch.autograd.grad(
            [y for y, _ in outputs], wanted, [g for _, g in outputs], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(found) if y.requires_grad else None for y in inputs)
