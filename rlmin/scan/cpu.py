"""Numba on the CPU: addresses in, one pass over memory, gates recomputed in the backward pass.

Rows are shared out over torch's own threads. Numba's `parallel=True` would bring a second OpenMP runtime beside
torch's into the process, and is not used.
"""

import ctypes
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from rlmin.scan.activation import Option, split_option
from rlmin.scan.cpu_loops import loop
from rlmin.scan.cpu_memory import empty
from rlmin.scan.gradients import Saved

Array = tuple[int, int, int]
"""Address, stride over time, stride over rows; the strides in elements."""

SCANS = ("linear", "gru", "lstm")
"""Those with loops in `cpu_loops.py`."""

_CACHED_BYTES = 256 * 1024  # of carry per block of rows
_PARALLEL_SIZE = 1 << 15  # elements from which a thread pays off
_PARALLEL_STEP = 1 << 11  # the same for one step of a cell with several gates


def forward(
    name: str, inputs: tuple[Tensor, ...], state: Tensor, start: Tensor | None, option: Option
) -> tuple[Tensor, Tensor]:
    """Every state and the last one of scan `name`, defined in `reference.py`."""
    activation, reverse = split_option(option)
    like = inputs[-1]
    h = empty(*like.shape, dtype=state.dtype)
    last = state.clone(memory_format=torch.contiguous_format)
    forward_into(f"{name}_forward", activation, inputs, start, h, last, int(reverse))
    return h.to(like.dtype), last


def forward_into(
    name: str,
    activation: str,
    inputs: tuple[Tensor, ...],
    start: Tensor | None,
    h: Tensor,
    carry: Tensor,
    option: int = 0,
) -> None:
    """Write every state into `h`, and the last one into the contiguous `carry` [B, D] that holds the first."""
    held = [_readable(x, h.dtype) for x in inputs]  # alive until the loop has read them
    flags = None if start is None else start.contiguous()
    _run(name, activation, [*map(_array, (*held, h)), _state(carry), _flags(flags)], h, option)


def backward(
    name: str, grad_h: Tensor | None, grad_last: Tensor | None, saved: Saved, option: Option
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of scan `name` (including the value of the linear scan) and of the state."""
    inputs, state, start, h = saved
    activation, reverse = split_option(option)
    dtypes = [x.dtype for x in inputs] + [h.dtype] * (name == "linear")
    grads = [empty(*h.shape, dtype=state.dtype) for _ in dtypes]
    carry = torch.zeros(state.shape, dtype=state.dtype)
    if grad_last is not None:
        carry.copy_(grad_last)
    backward_into(f"{name}_backward", activation, grad_h, inputs, state, start, h, grads, carry, int(reverse))
    return (*(g.to(dtype) for g, dtype in zip(grads, dtypes, strict=True)), carry)


def backward_into(
    name: str,
    activation: str,
    grad_h: Tensor | None,
    inputs: tuple[Tensor, ...],
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    grads: Sequence[Tensor],
    carry: Tensor,
    option: int = 0,
) -> None:
    """Write the gradients of the inputs into `grads`, and that of `state` into `carry`, which holds the last state's.

    `grads` may be columns of one array; `carry` is contiguous.
    """
    zeros = torch.zeros(h.shape[2], dtype=carry.dtype)
    grad_h = zeros.expand(h.shape) if grad_h is None else grad_h
    held = [_readable(x, carry.dtype) for x in (grad_h, *inputs)]  # like the next three, alive until the end
    past = h.to(carry.dtype).contiguous()
    initial = state.contiguous()
    flags = None if start is None else start.contiguous()
    read = [*map(_array, (*held, past)), _state(initial), (zeros.data_ptr(), 0, 0)]
    _run(name, activation, [*read, *map(_array, grads), _state(carry), _flags(flags)], past, option)


def step_table(arrays: Sequence[Tensor], T: int, B: int, D: int) -> tuple["ctypes.Array[ctypes.c_int64]", int]:
    """Table and number of threads of a loop that takes one step per call; set entry 0 to 0 and entry 5 to the step."""
    threads = max(1, min(torch.get_num_threads(), B, B * D // _PARALLEL_STEP))
    table = (0, B, -(-B // threads), T, D, 0, *chain.from_iterable(map(_array, arrays)))
    return (ctypes.c_int64 * len(table))(*table), threads


def _readable(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in the dtype of the carry with its last axis contiguous; copied only if necessary."""
    if x.dtype is not dtype:
        return x.to(dtype, memory_format=torch.contiguous_format)
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def _array(x: Tensor) -> Array:
    stride_t, stride_b, _ = x.stride()
    return x.data_ptr(), stride_t, stride_b


def _state(x: Tensor) -> Array:
    return x.data_ptr(), 0, x.stride(0)


def _flags(start: Tensor | None) -> Array:
    return (0, 0, 0) if start is None else (start.data_ptr(), start.stride(0), 1)


def _run(name: str, activation: str, arrays: list[Array], like: Tensor, option: int) -> None:
    """Run a loop over all rows, in threads if that pays off."""
    T, B, D = like.shape
    threads = max(1, min(torch.get_num_threads(), B, like.numel() // _PARALLEL_SIZE))
    block = max(1, min(_CACHED_BYTES // max(1, D * like.element_size()), -(-B // threads)))
    table = (0, B, block, T, D, option, *chain.from_iterable(arrays))
    loop(name, activation, like.dtype).run((ctypes.c_int64 * len(table))(*table), threads)
