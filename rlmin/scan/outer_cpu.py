"""`outer_scan` on the CPU by numba: tables for the loops of `outer_loops.py`, and the derivative around them."""

import ctypes
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlmin.scan.cpu_memory import empty
from rlmin.scan.cpu_vector import LANES
from rlmin.scan.outer_back_loops import loop
from rlmin.scan.outer_loops import EVERY, HEADER, REMOVE, SUM, WRITE, room, width
from rlmin.scan.outer_step_loops import loop as step_loop

Array = tuple[int, int, int, int]
"""Address, strides over time, rows and heads in elements."""
Portable = Callable[..., tuple[Tensor, Tensor]]
"""The same scan of torch operations, which can be differentiated twice: (query, ..., add, start, exclusive)."""

_PARALLEL_SIZE = 1 << 18  # elements of all memories of all steps from which a thread pays off
_NONE = (0, 0, 0, 0)


class Inputs(NamedTuple):
    """What a scan reads, of one dtype."""

    query: Tensor  # [T, B, heads, K]
    key: Tensor
    value: Tensor  # [T, B, heads, V]
    log_decay: Tensor | None  # [T, B, heads] or [T, B, heads, K]
    state: Tensor  # [B, heads, K, V]
    extra: Tensor | None  # the share that the delta rule writes [T, B, heads], or the probe [T, B, heads, K]
    add: Tensor | None  # [T, B, heads, K] beside a probe

    @property
    def kind(self) -> int:
        """What a step removes."""
        return SUM if self.extra is None else WRITE if self.add is None else REMOVE


def run(portable: Portable, inputs: Inputs, start: Tensor | None, exclusive: bool) -> tuple[Tensor, Tensor]:
    """y and the last memory; at least one step."""
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        y, last = _OuterScan.apply(portable, start, exclusive, *inputs)  # type: ignore[no-untyped-call]
        return y, last
    y, last, _ = _forward(inputs, start, exclusive, keep=False)
    return y, last


def step(inputs: Inputs, start: Tensor, exclusive: bool) -> tuple[Tensor, Tensor]:
    """y [B, heads, V] and the memory after one step, without gradients; inputs and start lack their first axis.

    V is a whole number of vectors, see `steps`.
    """
    wide = Inputs(*(None if x is None else x.unsqueeze(0) for x in inputs))  # type: ignore[arg-type]
    state = inputs.state.contiguous()
    y, last = torch.empty_like(wide.value, memory_format=torch.contiguous_format), torch.empty_like(state)
    held = [x if x is None else _dense(x) for x in wide]
    flags, ends = _flags(start.unsqueeze(0)), [_NONE, _memory(state), _array(y), _memory(last)]
    _run("step", wide, exclusive, [*(_array(held[i]) for i in (0, 1, 2, 3, 5, 6)), flags, *ends])
    return y[0], last


def steps(value: Tensor) -> bool:
    """Whether `step` can take values of this dtype and size: a whole number of vectors."""
    return value.dtype in LANES and value.shape[-1] % LANES[value.dtype] == 0 and value.numel() > 0


class _OuterScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, portable: Portable, start: Tensor | None, exclusive: bool, *tensors: Any
    ) -> tuple[Tensor, Tensor]:
        y, last, kept = _forward(Inputs(*tensors), start, exclusive, keep=True)
        ctx.portable, ctx.exclusive = portable, exclusive
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, kept, *tensors)
        return y, last

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        start, kept, *tensors = ctx.saved_tensors
        inputs = Inputs(*tensors)
        if torch.is_grad_enabled():
            grads = _differentiable(ctx, inputs, start, grad_y, grad_last)
        else:
            grads = _backward(inputs, start, ctx.exclusive, kept, grad_y, grad_last)
        return None, None, None, *grads


def _forward(inputs: Inputs, start: Tensor | None, exclusive: bool, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last memory, and every `EVERY`-th memory if they are to be kept."""
    value, state = inputs.value, inputs.state.contiguous()
    T, dtype = len(value), value.dtype
    y, last = empty(*value.shape, dtype=dtype), torch.empty_like(state)
    B, heads, K, V = state.shape
    kept = empty(-(-T // EVERY) if keep else 0, B, heads, V, width(K, dtype), dtype=dtype)
    held = _readable(inputs)
    ends = [_checkpoints(kept), _memory(state), _array(y), _memory(last)]
    _run("forward", inputs, exclusive, [*map(_array, held), _flags(start), *ends])
    return y, last, kept


def _backward(
    inputs: Inputs,
    start: Tensor | None,
    exclusive: bool,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs."""
    dtype, state = inputs.value.dtype, inputs.state
    grad_y = torch.zeros((), dtype=dtype).expand(inputs.value.shape) if grad_y is None else grad_y
    carry = torch.zeros(state.shape, dtype=dtype)
    if grad_last is not None:
        carry.copy_(grad_last)
    wanted = inputs.query, inputs.key, inputs.value, inputs.log_decay, inputs.extra, inputs.add
    grads = [None if x is None else empty(*x.shape, dtype=dtype) for x in wanted]
    if inputs.log_decay is not None and not inputs.log_decay.requires_grad:
        grads[3] = None
    held, grad_y = _readable(inputs), _dense(grad_y)
    arrays = [
        *map(_array, held),
        _flags(start),
        _checkpoints(kept),
        _array(grad_y),
        *map(_array, grads),
        _memory(carry),
    ]
    _run("backward", inputs, exclusive, arrays)
    dquery, dkey, dvalue, ddecay, dextra, dadd = grads
    return dquery, dkey, dvalue, ddecay, carry, dextra, dadd


def _differentiable(
    ctx: Any, inputs: Inputs, start: Tensor | None, grad_y: Tensor | None, grad_last: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The same gradients, from operations that can be differentiated again."""
    y, last = ctx.portable(*inputs, start, ctx.exclusive)
    outputs = [(x, g) for x, g in ((y, grad_y), (last, grad_last)) if g is not None]
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(
        torch.autograd.grad(
            [x for x, _ in outputs], wanted, [g for _, g in outputs], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)


def _readable(inputs: Inputs) -> list[Tensor | None]:
    """Query, key, value, log decay, extra and add, whose rows are contiguous; copied only if necessary."""
    query, key, value, log_decay, _, extra, add = inputs
    return [x if x is None else _dense(x) for x in (query, key, value, log_decay, extra, add)]


def _dense(x: Tensor) -> Tensor:
    return x if x.dim() < 4 or x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _array(x: Tensor | None) -> Array:
    return _NONE if x is None else (x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _memory(x: Tensor) -> Array:
    """[B, heads, K, V]"""
    return x.data_ptr(), 0, x.stride(0), x.stride(1)


def _checkpoints(x: Tensor) -> Array:
    """[N, B, heads, V, K or more], if any is kept."""
    return _array(x) if len(x) else _NONE


def _flags(start: Tensor | None) -> Array:
    return _NONE if start is None else (start.data_ptr(), start.stride(0), start.stride(1), 0)


def _run(way: str, inputs: Inputs, exclusive: bool, arrays: list[Array]) -> None:
    T, B, heads, K = inputs.query.shape
    V, dtype, log_decay = inputs.value.shape[3], inputs.value.dtype, inputs.log_decay
    wide = width(K, dtype)
    threads = max(1, min(torch.get_num_threads(), B, T * B * heads * K * V // _PARALLEL_SIZE))
    numbers, size = (ctypes.c_int64 * 3)(0, 0, 1), room(wide, V)
    scratch = torch.empty(threads * size, dtype=dtype)
    entries = {"taken": 0, "all": B * heads, "many": heads, "T": T, "heads": heads, "K": K, "V": V}
    entries |= {"wide": wide, "room": size}
    entries |= {"exclusive": int(exclusive), "each": int(log_decay is not None and log_decay.dim() == 4)}
    entries |= {"threads": ctypes.addressof(numbers), "scratch": scratch.data_ptr()}
    table = [entries[name] for name in HEADER._fields] + list(chain.from_iterable(arrays))
    compiled = step_loop(inputs.kind, dtype) if way == "step" else loop(way, inputs.kind, dtype)
    compiled.run((ctypes.c_int64 * len(table))(*table), threads)
