"""Numba on the CPU: addresses in, one pass over memory, gates recomputed in the backward pass.

Large inputs are split by rows over a thread pool (the loops release the GIL). Numba's own `parallel=True` would bring
a second OpenMP runtime beside torch's into the process, and is not used.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rlmin.scan import cpu_loops as loops

Array = tuple[int, int, int]
"""Address, stride over time, stride over rows; the strides in elements."""

_ONE = {torch.float32: np.float32(1), torch.float64: np.float64(1)}
_CACHED_BYTES = 256 * 1024  # of carry that a block of rows holds
_PARALLEL_SIZE = 1 << 20  # elements from which threads pay

_pool: ThreadPoolExecutor | None = None


def linear_forward(
    decay: Tensor, value: Tensor, state: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """h[t] = decay[t] * h[t-1] + value[t]."""
    return _forward(loops.linear_forward, (decay, value), state, start, int(reverse))


def gru_forward(
    gate: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = h[t-1] + sigmoid(gate[t]) * (c(candidate[t]) - h[t-1])."""
    return _forward(loops.GRU_FORWARD[activation], (gate, candidate), state, start)


def lstm_forward(
    forget: Tensor, input: Tensor, candidate: Tensor, state: Tensor, start: Tensor | None, activation: str
) -> tuple[Tensor, Tensor]:
    """h[t] = f' * h[t-1] + i' * c(candidate[t]), with f' = f / (f + i) and i' = i / (f + i)."""
    return _forward(loops.LSTM_FORWARD[activation], (forget, input, candidate), state, start)


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
    dtypes = (decay.dtype, h.dtype)
    grads = _backward(loops.linear_backward, (decay,), dtypes, grad_h, grad_last, state, start, h, int(reverse))
    return grads[0], grads[1], grads[2]


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
    loop, inputs = loops.GRU_BACKWARD[activation], (gate, candidate)
    grads = _backward(loop, inputs, tuple(x.dtype for x in inputs), grad_h, grad_last, state, start, h)
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
    loop, inputs = loops.LSTM_BACKWARD[activation], (forget, input, candidate)
    grads = _backward(loop, inputs, tuple(x.dtype for x in inputs), grad_h, grad_last, state, start, h)
    return grads[0], grads[1], grads[2], grads[3]


def _forward(
    loop: Callable[..., None], inputs: tuple[Tensor, ...], state: Tensor, start: Tensor | None, *option: int
) -> tuple[Tensor, Tensor]:
    like = inputs[-1]
    held = [_readable(x, state.dtype) for x in inputs]  # alive until the loop has read them
    flags = None if start is None else start.contiguous()
    h = torch.empty(like.shape, dtype=state.dtype)
    last = state.clone(memory_format=torch.contiguous_format)
    _run(loop, [*map(_array, (*held, h)), _state(last), _flags(flags)], h, option)
    return h.to(like.dtype), last


def _backward(
    loop: Callable[..., None],
    inputs: tuple[Tensor, ...],
    dtypes: tuple[torch.dtype, ...],
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    state: Tensor,
    start: Tensor | None,
    h: Tensor,
    *option: int,
) -> tuple[Tensor, ...]:
    carry = state.dtype
    zeros = torch.zeros(h.shape[2], dtype=carry)
    grad_h = zeros.expand(h.shape) if grad_h is None else grad_h
    held = [_readable(x, carry) for x in (grad_h, *inputs)]  # alive, as the next three, until the loop has read them
    past = h.to(carry).contiguous()
    initial = state.contiguous()
    flags = None if start is None else start.contiguous()
    grads = [torch.empty(h.shape, dtype=carry) for _ in dtypes]
    grad_state = torch.zeros(state.shape, dtype=carry)
    if grad_last is not None:
        grad_state.copy_(grad_last)
    read = [*map(_array, (*held, past)), _state(initial), (zeros.data_ptr(), 0, 0)]
    _run(loop, [*read, *map(_array, grads), _state(grad_state), _flags(flags)], past, option)
    return (*(g.to(dtype) for g, dtype in zip(grads, dtypes, strict=True)), grad_state)


def _readable(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in the dtype of the carry with its last axis contiguous, copied only if it is not so already."""
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


def _run(loop: Callable[..., None], arrays: list[Array], like: Tensor, option: tuple[int, ...]) -> None:
    """Run `loop` over all rows, in threads where that pays."""
    T, B, D = like.shape
    block = max(1, _CACHED_BYTES // max(1, D * like.element_size()))
    one = _ONE[like.dtype]
    threads = min(torch.get_num_threads(), B) if like.numel() >= _PARALLEL_SIZE else 1
    if threads <= 1:
        loop(*arrays, (T, B, D), (0, B, block), *option, one)
        return
    edges = [B * i // threads for i in range(threads + 1)]
    parts = [(*arrays, (T, B, D), (low, high, block), *option, one) for low, high in pairwise(edges)]
    jobs = [_threads().submit(loop, *part) for part in parts[1:]]
    loop(*parts[0])
    for job in jobs:
        job.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="rlmin-scan")
    return _pool


def _forget_threads() -> None:
    """A forked child inherits the pool object and none of its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
