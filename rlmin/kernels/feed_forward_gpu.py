"""Triton kernels of the feed-forward half of a block: tiles of rows, the numbers of a row at once where a norm is.

Forward, every array is read or written once. The backward kernels walk over tiles and keep the sums over rows of their
program, one row for each weight, which a last sum joins. There are no atomics, so results repeat bit for bit. Offsets
have 64 bits.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlmin.scan.gpu import use_device
from rlmin.scan.gpu_math import sigmoids

_TILE, _TILE_BACKWARD = 2048, 1024  # numbers of a tile; larger ones spill registers
# Without a loose bound on registers the assembler picks a tight one, and spills.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True} | ({} if torch.version.hip else {"maxnreg": 224})
_PROGRAMS = 1024  # of a backward pass, at most: each has sums of its own
_WIDEST = 128  # columns of a tile where a row may be cut


def add_norm_forward(
    x: Tensor, update: Tensor, gamma: Tensor, beta: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + update + bias and norm(x + update)."""
    x, update = x.contiguous(), update.contiguous()
    y, n = torch.empty_like(x), torch.empty_like(x)
    D = x.shape[-1]
    N, (rows, columns) = x.numel() // D, tile_of("add_norm_forward", D)
    with use_device(x.device):
        _add_norm_forward[(triton.cdiv(N, rows),)](
            x, update, gamma, beta, bias, y, n, N, D, eps, ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return y, n


def add_norm_backward(
    dn: Tensor, dy: Tensor, x: Tensor, update: Tensor, gamma: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the sum; and those of gamma, beta and bias, [3, D]."""
    dn, dy, x, update = (part.contiguous() for part in (dn, dy, x, update))
    ds, D = torch.empty_like(x), x.shape[-1]
    N, (rows, columns) = x.numel() // D, tile_of("add_norm_backward", D)
    tiles = triton.cdiv(N, rows)
    programs = min(tiles, _PROGRAMS)
    sums = x.new_empty(programs, 3, D)
    with use_device(x.device):
        _add_norm_backward[(programs,)](
            dn, dy, x, update, gamma, ds, sums, N, D, tiles, eps, ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return ds, sums.sum(0)


def silu_backward(dhidden: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a [N, H] and of its bias."""
    dhidden, a = dhidden.contiguous(), a.contiguous()
    da, (N, H) = torch.empty_like(a), a.shape
    rows, columns = tile_of("silu_backward", H)
    tiles = triton.cdiv(N, rows)
    programs = min(tiles, _PROGRAMS)
    sums = a.new_empty(programs, H)
    with use_device(a.device):
        _silu_backward[(programs, triton.cdiv(H, columns))](
            dhidden, a, da, sums, N, H, tiles, ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return da, sums.sum(0)


def tile_of(kernel: str, D: int) -> tuple[int, int]:
    """Rows and columns of a tile of a kernel, for rows of D numbers."""
    columns = triton.next_power_of_2(D)
    if kernel == "silu_backward":
        columns = min(columns, _WIDEST)
    return max(1, min(16, (_TILE if kernel == "add_norm_forward" else _TILE_BACKWARD) // columns)), columns


@triton.jit
def _sum_and_norm(x, update, place, own, D, eps):
    """s = x + update of a tile, s without its mean and deviation, and 1 / deviation."""
    s = tl.load(x + place, mask=own, other=0) + tl.load(update + place, mask=own, other=0)
    mean = tl.sum(s, 1) / D
    v = tl.where(own, s - mean[:, None], 0)
    scale = 1 / tl.sqrt(tl.sum(v * v, 1) / D + eps)
    return s, v * scale[:, None], scale


@triton.jit(do_not_specialize=["N"])
def _add_norm_forward(x, update, gamma, beta, bias, y, normed, N, D, eps, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    real = column < D
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    own = (row < N)[:, None] & real[None, :]
    place = row[:, None] * D + column[None, :]
    s, hat, _ = _sum_and_norm(x, update, place, own, D, eps)
    size = tl.load(gamma + column, mask=real, other=0)[None, :]
    shift = tl.load(beta + column, mask=real, other=0)[None, :]
    tl.store(y + place, s + tl.load(bias + column, mask=real, other=0)[None, :], mask=own)
    tl.store(normed + place, hat * size + shift, mask=own)


@triton.jit(do_not_specialize=["N", "tiles"])
def _add_norm_backward(dn, dy, x, update, gamma, ds, sums, N, D, tiles, eps, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    real = column < D
    size = tl.load(gamma + column, mask=real, other=0)
    KIND: tl.constexpr = x.dtype.element_ty
    dgamma = tl.zeros([COLUMNS], dtype=KIND)
    dbeta = tl.zeros([COLUMNS], dtype=KIND)
    dbias = tl.zeros([COLUMNS], dtype=KIND)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        own = (row < N)[:, None] & real[None, :]
        place = row[:, None] * D + column[None, :]
        _, hat, scale = _sum_and_norm(x, update, place, own, D, eps)
        of_norm = tl.load(dn + place, mask=own, other=0)
        straight = tl.load(dy + place, mask=own, other=0)
        dgamma += tl.sum(of_norm * hat, 0)
        dbeta += tl.sum(of_norm, 0)
        dbias += tl.sum(straight, 0)
        dhat = of_norm * size[None, :]
        mean, slope = tl.sum(dhat, 1) / D, tl.sum(dhat * hat, 1) / D
        tl.store(ds + place, straight + scale[:, None] * (dhat - mean[:, None] - hat * slope[:, None]), mask=own)
    first = sums + tl.program_id(0).to(tl.int64) * 3 * D + column
    tl.store(first, dgamma, mask=real)
    tl.store(first + D, dbeta, mask=real)
    tl.store(first + 2 * D, dbias, mask=real)


@triton.jit(do_not_specialize=["N", "tiles"])
def _silu_backward(dhidden, a, da, sums, N, H, tiles, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = column < H
    total = tl.zeros([COLUMNS], dtype=a.dtype.element_ty)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        own = (row < N)[:, None] & real[None, :]
        place = row[:, None] * H + column[None, :]
        v = tl.load(a + place, mask=own, other=0)
        open, shut = sigmoids(v)
        grad = tl.load(dhidden + place, mask=own, other=0) * open * (1 + v * shut)
        tl.store(da + place, grad, mask=own)
        total += tl.sum(grad, 0)
    tl.store(sums + tl.program_id(0).to(tl.int64) * H + column, total, mask=real)
