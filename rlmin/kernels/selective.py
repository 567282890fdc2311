"""The selective state space of Mamba on the CPU: decays, recurrence and reading in one walk, both ways.

    h[t] = exp(-dt[t] rate) * h[t-1] + value[t] b[t]'        [E, N], with h[t-1] read as 0 where start[t]
    y[t] = h[t] c[t]                                         signed: 2 exp(-dt[t] rate) - 1

As torch operations and a `linear_scan`, decays and memories of all steps go through main memory, N times the size of
all inputs. Here those of a row stay in cache.
"""

import ctypes
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from rlmin.kernels.selective_loops import EVERY, HEADER, loop, room
from rlmin.scan import linear_scan
from rlmin.scan.cpu_memory import empty

Array = tuple[int, int, int]
"""Address, stride over time, stride over rows; the strides in elements."""

_PARALLEL_SIZE = 1 << 17  # elements of the memories of all steps from which a thread pays off
_NONE = (0, 0, 0)


def selective_scan(
    dt: Tensor, value: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor, start: Tensor, *, signed: bool
) -> tuple[Tensor, Tensor]:
    """The equations above.

    Args:
        dt, value: [T, B, E] float32 or float64, on the CPU like all arguments.
        b, c: [T, B, N]; rate: [E, N]; state: [B, E, N], the memory that enters step 0; all of that dtype.
        start: [T, B] bool, the state that enters step t is replaced by 0.
        signed: whether decays lie in (-1, 1).

    Returns:
        y: [T, B, E]; last: [B, E, N]. Gradients flow to all but start, twice differentiable.
    """
    inputs = (dt, value, b, c, rate, state)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        y, last = _Selective.apply(start, signed, *inputs)  # type: ignore[no-untyped-call]
        return y, last
    y, last, _ = _forward(inputs, start, signed, keep=False)
    return y, last


def portable_selective_scan(
    dt: Tensor, value: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor, start: Tensor, *, signed: bool
) -> tuple[Tensor, Tensor]:
    """The same by torch operations."""
    keep = torch.exp(-dt.unsqueeze(-1) * rate)
    written = value.unsqueeze(-1) * b.unsqueeze(-2)
    h, last = linear_scan(2 * keep - 1 if signed else keep, written, state, start)
    return (h @ c.unsqueeze(-1)).squeeze(-1), last


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: Tensor, signed: bool, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, last, kept = _forward(inputs, start, signed, keep=True)
        ctx.signed = signed
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, kept, *inputs)
        return y, last

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        start, kept, *inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, *_backward(inputs, start, ctx.signed, kept, grad_y, grad_last)
        dt, value, b, c, rate, state = inputs
        outputs = portable_selective_scan(dt, value, b, c, rate, state, start, signed=ctx.signed)
        pairs = [(x, g) for x, g in zip(outputs, (grad_y, grad_last), strict=True) if g is not None]
        wanted = [x for x in inputs if x.requires_grad]
        grads = torch.autograd.grad(
            [x for x, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
        found = iter(grads)
        return None, None, *(next(found) if x.requires_grad else None for x in inputs)


def _forward(inputs: tuple[Tensor, ...], start: Tensor, signed: bool, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last memory, and every `EVERY`-th memory if they are to be kept."""
    dt, state = inputs[0], inputs[5].contiguous()
    T, (B, E, N) = len(dt), state.shape
    y, last = empty(T, B, E, dtype=dt.dtype), torch.empty_like(state)
    kept = empty(-(-T // EVERY) if keep else 0, B, N, E, dtype=dt.dtype)
    held = _readable(inputs, start)
    ends = [_array(kept) if len(kept) else _NONE, _memory(state), _array(y), _memory(last)]
    _run("forward", signed, held[0], state, [*_arrays(held), *ends])
    return y, last, kept


def _backward(
    inputs: list[Tensor],
    start: Tensor,
    signed: bool,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients of the inputs."""
    dt, b, state = inputs[0], inputs[2], inputs[5]
    B, E, N = state.shape
    grad_y = torch.zeros(E, dtype=dt.dtype).expand(dt.shape) if grad_y is None else _dense(grad_y)
    carry = torch.zeros(state.shape, dtype=dt.dtype)
    if grad_last is not None:
        carry.copy_(grad_last)
    wide, narrow = (
        [empty(*dt.shape, dtype=dt.dtype) for _ in range(2)],
        [empty(*b.shape, dtype=dt.dtype) for _ in range(2)],
    )
    of_rate, held = empty(B, N, E, dtype=dt.dtype), _readable(inputs, start)
    outs = [_array(kept), _array(grad_y), _memory(carry), *map(_array, (*wide, *narrow)), _memory(of_rate)]
    _run("backward", signed, held[0], state, [*_arrays(held), *outs])
    return *wide, *narrow, of_rate.sum(0).t(), carry


def _readable(inputs: tuple[Tensor, ...] | list[Tensor], start: Tensor) -> list[Tensor]:
    """dt, value, b, c, rate and start, whose rows are contiguous; copied only if necessary. The rate is [N, E]."""
    return [*map(_dense, inputs[:4]), inputs[4].t().contiguous(), start]


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def _arrays(held: list[Tensor]) -> list[Array]:
    *sequences, rate, start = held
    flags = start.data_ptr(), start.stride(0), start.stride(1)
    return [*map(_array, sequences), (rate.data_ptr(), 0, 0), flags]


def _array(x: Tensor) -> Array:
    return x.data_ptr(), x.stride(0), x.stride(1)


def _memory(x: Tensor) -> Array:
    return x.data_ptr(), 0, x.stride(0)


def _run(way: str, signed: bool, like: Tensor, state: Tensor, arrays: list[Array]) -> None:
    T, (B, E, N), dtype = len(like), state.shape, like.dtype
    threads = max(1, min(torch.get_num_threads(), B, T * B * E * N // _PARALLEL_SIZE))
    numbers, size = (ctypes.c_int64 * 3)(0, 0, 1), room(E, N)
    scratch = torch.empty(threads * size, dtype=dtype)
    entries = {"taken": 0, "rows": B, "many": 1, "T": T, "E": E, "N": N, "room": size}
    entries |= {"threads": ctypes.addressof(numbers), "scratch": scratch.data_ptr()}
    table = [entries[name] for name in HEADER._fields] + list(chain.from_iterable(arrays))
    loop(way, signed, dtype).run((ctypes.c_int64 * len(table))(*table), threads)
