"""The walk of a self-referential weight matrix on the CPU: all steps of a head at once, its matrix in cache.

    y, q, k, b = (base + s) u[t];   q, k = softmax(q), softmax(k)
    s = s + sigmoid(b) * ((base + s) (q - k)) k'          s is wiped before the step where start[t]

The gradient of y, and of the matrix after a step, goes back through what the step wrote by itself.
"""

import ctypes
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlmin.kernels.self_reference_loops import loop, room
from rlmin.scan.cpu_memory import empty
from rlmin.scan.outer_loops import EVERY, HEADER, width

Array = tuple[int, int, int, int]
"""Address, strides over time, rows and heads in elements."""

Portable = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same walk of torch operations, which can be differentiated twice."""

_PARALLEL_SIZE = 1 << 18  # elements of all matrices of all steps from which a thread pays off
_NONE = (0, 0, 0, 0)


def walk(portable: Portable, u: Tensor, base: Tensor, state: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The equations above.

    Args:
        portable: the same, for second derivatives.
        u: [T, B, heads, K] float32 or float64, on the CPU like all arguments; at least one step.
        base: [heads, 3K + 4, K], rows [y; q; k; b]; state: [B, heads, 3K + 4, K], the difference from it; same dtype.
        start: [T, B] bool.

    Returns:
        y: [T, B, heads, K]; last: the state after the last step. Gradients flow to u, base and state.
    """
    if torch.is_grad_enabled() and (u.requires_grad or base.requires_grad or state.requires_grad):
        y, last = _Walk.apply(portable, u, base, state, start)  # type: ignore[no-untyped-call]
        return y, last
    y, last, _ = _forward(u, _widen(base), state, start, keep=False)
    return y, last


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, portable: Portable, u: Tensor, base: Tensor, state: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, last, kept = _forward(u, _widen(base), state, start, keep=True)
        ctx.portable = portable
        ctx.save_for_backward(u, base, state, start, kept)
        return y, last

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        u, base, state, start, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = u, base, state
            outputs, wanted = ctx.portable(*inputs, start), [x for x in inputs if x.requires_grad]
            found = iter(torch.autograd.grad(outputs, wanted, (grad_y, grad_last), create_graph=True))
            return None, *(next(found) if x.requires_grad else None for x in inputs), None
        (B, K), base = (len(state), u.shape[3]), _widen(base)
        carry = grad_last.clone(memory_format=torch.contiguous_format)
        of_u, of_base = empty(*u.shape, dtype=u.dtype), empty(B, *base.shape, dtype=u.dtype)
        u, grad_y = _dense(u), _dense(grad_y)
        arrays = [_array(u), _weights(base), _flags(start), _array(kept), _memory(carry), _array(grad_y)]
        _run("backward", u, base, [*arrays, _array(of_u), _memory(of_base)])
        return None, of_u, of_base.sum(0)[..., :K], carry, None


def _forward(u: Tensor, base: Tensor, state: Tensor, start: Tensor, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and every `EVERY`-th one if they are to be kept; the base is filled up to whole vectors."""
    u, state = _dense(u), state.contiguous()
    y, last = empty(*u.shape, dtype=u.dtype), torch.empty_like(state)
    kept = empty(-(-len(u) // EVERY) if keep else 0, len(state), *base.shape, dtype=u.dtype)
    arrays = [_array(u), _weights(base), _flags(start), _array(kept) if keep else _NONE]
    _run("forward", u, base, [*arrays, _memory(state), _array(y), _memory(last)])
    return y, last, kept


def _widen(base: Tensor) -> Tensor:
    """Rows filled up with zeros to whole vectors."""
    K = base.shape[-1]
    wide = width(K, base.dtype)
    return base.detach().contiguous() if wide == K else pad(base.detach(), (0, wide - K))


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _array(x: Tensor) -> Array:
    return x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)


def _weights(x: Tensor) -> Array:
    return x.data_ptr(), 0, 0, x.stride(0)


def _memory(x: Tensor) -> Array:
    return x.data_ptr(), 0, x.stride(0), x.stride(1)


def _flags(start: Tensor) -> Array:
    return start.data_ptr(), start.stride(0), start.stride(1), 0


def _run(way: str, u: Tensor, base: Tensor, arrays: list[Array]) -> None:
    T, B, heads, K = u.shape
    rows, wide = base.shape[1:]
    threads = max(1, min(torch.get_num_threads(), B, T * B * base.numel() // _PARALLEL_SIZE))
    numbers, size = (ctypes.c_int64 * 3)(0, 0, 1), room(wide, rows)
    scratch = torch.empty(threads * size, dtype=u.dtype)
    entries = {"taken": 0, "all": B * heads, "many": heads, "T": T, "heads": heads, "K": K, "V": rows, "wide": wide}
    entries |= {"exclusive": 0, "each": 0, "threads": ctypes.addressof(numbers)}
    entries |= {"scratch": scratch.data_ptr(), "room": size}
    table = [entries[name] for name in HEADER._fields] + list(chain.from_iterable(arrays))
    loop(way, u.dtype).run((ctypes.c_int64 * len(table))(*table), threads)
