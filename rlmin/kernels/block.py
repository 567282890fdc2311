"""The operations between the matrix products of a residual block, each one walk over memory on the CPU.

    norm_conv      y = conv(norm(x))                            the way into a mixer
    feed_forward   y = s + W2 silu(W1 norm(s) + b1) + b2        s = x + update, the second half of a block
    silu_mlp       y = W2 silu(W1 x + b1) + b2

torch runs these as more than twenty small operations, which cost more than the products on a CPU. The equations are
those of `nn.LayerNorm`, `nn.SiLU` and `rlmin.encoders.CausalConv`; callers use these modules wherever `usable` is
False. First derivatives only.
"""

import ctypes
import functools
import math
import os
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlmin.scan.cpu_memory import empty
from rlmin.scan.dispatch import kernel_for

Array = tuple[int, int, int]
"""Address, stride over time (or over parts), stride over rows; the strides in elements."""

_PARALLEL_SIZE = 1 << 14  # elements from which a thread pays off
_CACHED_BYTES = 256 * 1024  # of the convolution's steps in view, per block of rows
_NONE = (0, 0, 0)


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether `x` can go through the functions of this module with weights like `weight`.

    They run on the CPU with numba, in float32 or float64 throughout. They are not used under autocast, under
    `torch.compile`, which fuses such operations itself, or without gradients, as one step is not faster this way.
    """
    return (
        torch.is_grad_enabled()
        and x.dtype is weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _loops(os.environ.get("RLMIN_KERNEL")) is not None
    )


@functools.cache
def _loops(forced: str | None) -> ModuleType | None:
    """The numba loops if scans use numba's kernel too, as the setting `forced` decides; else None."""
    if kernel_for(torch.device("cpu")).__name__ != "rlmin.scan.cpu":
        return None
    from rlmin.kernels import block_loops  # numba may be missing, and is slow to import

    return block_loops


def norm_conv(
    x: Tensor, norm: nn.LayerNorm, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """conv(norm(x)): see `rlmin.encoders.CausalConv`.

    Args:
        x: [T, B, D], or [B, D] for one step.
        state: [B, width - 1, D].
        start: [T, B] or [B] bool.
        weight, bias: of the convolution, [width, D] and [D].

    Returns:
        y as x, and the state after it.
    """
    y, last = _NormConv.apply(x, state, start, norm.weight, norm.bias, weight, bias, norm.eps)  # type: ignore[no-untyped-call]
    return y, last


def feed_forward(x: Tensor, update: Tensor, norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear) -> Tensor:
    """s + second(silu(first(norm(s)))) with s = x + update; x and update [..., D]."""
    weights = (norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias)
    y: Tensor = _FeedForward.apply(x, update, *weights, norm.eps)  # type: ignore[no-untyped-call]
    return y


def silu_mlp(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """second(silu(first(x))), x [..., D]."""
    y: Tensor = _SiluMLP.apply(x, first.weight, first.bias, second.weight, second.bias)  # type: ignore[no-untyped-call]
    return y


class _NormConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, ctx.eps = inputs
        x, state, start, gamma, beta, weight, bias = (part.contiguous() for part in tensors)
        B, _, D = state.shape
        n, y, stats, last = _like(x), _like(x), _stats(x), torch.empty_like(state)
        age = torch.empty(start.shape, dtype=torch.int64)
        numbers = _numbers(x.dtype, ctx.eps, D)
        arrays = [*(_steps(part, B) for part in (x, n, stats, y)), (age.data_ptr(), B, 1)]
        arrays += [*map(_parts, (state, last)), (start.data_ptr(), B, 1)]
        arrays += map(_rows, (gamma, beta))
        arrays += [_weights(weight), _rows(bias), _rows(numbers)]
        _run("norm_conv_forward", x, arrays, B, start.numel() // B, D, width=len(weight))
        ctx.save_for_backward(x, state, gamma, weight, n, stats, age)
        ctx.set_materialize_grads(False)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        x, state, gamma, weight, n, stats, age = ctx.saved_tensors
        dy = torch.zeros_like(x) if dy is None else dy.contiguous()
        dlast = None if dlast is None else dlast.contiguous()
        (B, _, D), width = state.shape, len(weight)
        dx, dstate, numbers = _like(x), torch.empty_like(state), _numbers(x.dtype, ctx.eps, D)
        sums = x.new_zeros(_parts_of(x, B, width), width + 4, D)
        arrays = [*(_steps(part, B) for part in (x, n, stats, dy)), (age.data_ptr(), B, 1), _parts(state)]
        arrays += [_NONE if dlast is None else _parts(dlast), _steps(dx, B), _parts(dstate), _rows(gamma)]
        arrays += [_weights(weight), _parts(sums), _rows(numbers)]
        _run("norm_conv_backward", x, arrays, B, age.numel() // B, D, width=width)
        total = sums.sum(0)
        return dx, dstate, None, total[1], total[2], total[4:], total[3], None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, ctx.eps = inputs
        x, update, gamma, beta, w1, b1, w2, b2 = (part.contiguous() for part in tensors)
        D, y, n, stats = x.shape[-1], _like(x), _like(x), _stats(x)
        arrays = map(_rows, (x, update, y, n, stats, gamma, beta, b2, _numbers(x.dtype, ctx.eps, D)))
        _run("add_norm_forward", x, [*arrays], x.numel() // D, 1, D)
        n = n.view(-1, D)
        a, hidden = _hidden(n, w1, b1)
        y.view(-1, D).addmm_(hidden, w2.t())  # the loop has put s + b2 there
        ctx.save_for_backward(x, update, gamma, w1, w2, n, stats, a, hidden)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, update, gamma, w1, w2, n, stats, a, hidden = ctx.saved_tensors
        dy, D = dy.contiguous(), x.shape[-1]
        dn, dw1, db1, dw2 = _mlp_backward(dy.view(-1, D), n, a, hidden, w1, w2)
        assert dn is not None, "asked for"
        dx, sums = _like(x), x.new_zeros(_parts_of(x, len(n)), 4, D)
        arrays = [*map(_rows, (x, update, stats, dn, dy, dx, gamma)), _parts(sums)]
        _run("add_norm_backward", x, [*arrays, _rows(_numbers(x.dtype, ctx.eps, D))], len(n), 1, D)
        total = sums.sum(0)
        return dx, dx, total[1], total[2], dw1, db1, dw2, total[3], None


class _SiluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, w1, b1, w2, b2 = (part.contiguous() for part in inputs)
        a, hidden = _hidden(x.view(-1, x.shape[-1]), w1, b1)
        y = empty(*x.shape[:-1], len(w2), dtype=x.dtype)
        torch.addmm(b2, hidden, w2.t(), out=y.view(-1, len(w2)))
        ctx.save_for_backward(x, a, hidden, w1, w2)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, a, hidden, w1, w2 = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])
        need = ctx.needs_input_grad[0]
        dx, dw1, db1, dw2 = _mlp_backward(dy, x.view(-1, x.shape[-1]), a, hidden, w1, w2, need_dx=need)
        return None if dx is None else dx.view(x.shape), dw1, db1, dw2, dy.sum(0)


def _hidden(x: Tensor, w1: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden layer [N, H] before and after SiLU."""
    a, hidden = empty(len(x), len(w1), dtype=x.dtype), empty(len(x), len(w1), dtype=x.dtype)
    torch.addmm(b1, x, w1.t(), out=a)
    _run("silu_forward", a, [*map(_rows, (a, hidden))], len(a), 1, len(w1))
    return a, hidden


def _mlp_backward(
    dy: Tensor, x: Tensor, a: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor, *, need_dx: bool = True
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of x, w1, b1 and w2, given that of the output [N, D]."""
    dw2 = dy.t().mm(hidden)
    da = torch.mm(dy, w2, out=_like(a))
    sums = a.new_zeros(_parts_of(a, len(a)), 1, a.shape[1])
    _run("silu_backward", a, [_rows(a), _rows(da), _parts(sums)], len(a), 1, a.shape[1])
    dx = torch.mm(da, w1, out=_like(x)) if need_dx else None
    return dx, da.t().mm(x), sums.sum((0, 1)), dw2


def _like(x: Tensor) -> Tensor:
    return empty(*x.shape, dtype=x.dtype)


def _stats(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], 2)


@functools.cache
def _numbers(dtype: torch.dtype, eps: float, D: int) -> Tensor:
    return torch.tensor([eps, 1 / D], dtype=dtype)


def _rows(x: Tensor) -> Array:
    """[..., D] as rows without time."""
    return x.data_ptr(), 0, x.shape[-1]


def _weights(x: Tensor) -> Array:
    """[K, D], K in the place of time."""
    return x.data_ptr(), x.shape[-1], 0


def _steps(x: Tensor, B: int) -> Array:
    """[T, B, D] or [B, D]."""
    return x.data_ptr(), B * x.shape[-1], x.shape[-1]


def _parts(x: Tensor) -> Array:
    """[P, K, D], P in the place of time."""
    return x.data_ptr(), x.shape[1] * x.shape[2], x.shape[2]


def _run(name: str, like: Tensor, arrays: list[Array], rows: int, T: int, D: int, *, width: int = 0) -> None:
    """Run a loop over all rows, in threads if a tensor like `like` is large enough."""
    loops = _loops(os.environ.get("RLMIN_KERNEL"))
    assert loops is not None, "`usable` was True"
    block = _block(like, rows, width)
    table = (0, rows, block, T, D, width, *chain.from_iterable(arrays))
    loops.loop(name, like.dtype).run((ctypes.c_int64 * len(table))(*table), _count(like, rows))


def _count(like: Tensor, rows: int) -> int:
    """Number of threads."""
    return max(1, min(torch.get_num_threads(), rows, like.numel() // _PARALLEL_SIZE))


def _block(like: Tensor, rows: int, width: int) -> int:
    """Number of rows that a thread takes at once; with a convolution no more than fit in cache."""
    block = -(-rows // _count(like, rows))
    if width:
        block = min(block, _CACHED_BYTES // (2 * width * like.shape[-1] * like.element_size()))
    return max(1, block)


def _parts_of(like: Tensor, rows: int, width: int = 0) -> int:
    """Number of times that threads take rows."""
    return math.ceil(rows / _block(like, rows, width))
