"""Triton kernels of LayerNorm and causal convolution: a tile of rows (t, b) a program, all D columns of a row at once.

A row reads its `width` last rows, normalises each anew and adds them up. So x is read `width` times, but from memory
only once: the rows of a step are read by neighbouring programs at about the same time, from the cache. Nothing but y is
written. The backward pass reads `width` rows of x and of dy for each row, and writes dx and, for every program, one row
of sums over its rows for each weight. There are no atomics, so results repeat bit for bit. Offsets have 64 bits.

Steps before the first one, t = -1, -2, ..., are those of the state: the backward pass walks over them, too, and writes
their gradients to dstate.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlmin.scan.gpu import use_device

_TILE, _TILE_BACKWARD = 2048, 1024  # numbers of a tile; larger ones spill registers
# Without a loose bound on registers the assembler picks a tight one, and spills.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True} | ({} if torch.version.hip else {"maxnreg": 224})
_PROGRAMS = 1024  # of the backward pass, at most: each has sums of its own


def forward(
    x: Tensor, state: Tensor, start: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """y and the state after it; arguments as in `norm_conv.norm_conv`."""
    T, B, D = x.shape
    x, state, flags = x.contiguous(), state.contiguous(), start.contiguous().view(torch.uint8)
    y, last = torch.empty_like(x), torch.empty_like(state)
    rows, columns = tile_of("forward", D)
    arrays = (x, state, flags, gamma, beta, weight.contiguous(), bias, y, last)
    with use_device(x.device):
        _forward[(triton.cdiv(T * B, rows),)](
            *arrays, T, B, D, eps, WIDTH=len(weight), ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return y, last


def backward(
    dy: Tensor,
    dlast: Tensor | None,
    straight: Tensor | None,
    x: Tensor,
    state: Tensor,
    start: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    eps: float,
) -> tuple[Tensor, ...]:
    """Gradients of x, to which `straight` is added, and of state, gamma, beta, weight and bias."""
    (T, B, D), width = x.shape, len(weight)
    x, state, dy = (part.contiguous() for part in (x, state, dy))
    dlast, straight = (None if part is None else part.contiguous() for part in (dlast, straight))
    dx, dstate = torch.empty_like(x), torch.empty_like(state)
    rows, columns = tile_of("backward", D)
    tiles = triton.cdiv((T + width - 1) * B, rows)
    programs = max(1, min(tiles, _PROGRAMS))
    sums = x.new_empty(programs, width + 3, D)
    arrays = (dy, dlast, straight, x, state, start.contiguous().view(torch.uint8), gamma, beta, weight.contiguous())
    padded = triton.next_power_of_2(width)
    sizes = {"WIDTH": width, "PADDED": padded, "ROWS": rows, "COLUMNS": columns}
    with use_device(x.device):
        _backward[(programs,)](*arrays, dx, dstate, sums, T, B, D, tiles, eps, **sizes, **OPTIONS)
    total = sums.sum(0)
    return dx, dstate, total[width], total[width + 1], total[:width], total[width + 2]


def tile_of(kernel: str, D: int) -> tuple[int, int]:
    """Rows and columns of a tile of the kernel "forward" or "backward"."""
    columns = triton.next_power_of_2(D)
    return max(1, min(16, (_TILE if kernel == "forward" else _TILE_BACKWARD) // columns)), columns


@triton.jit
def _normalise(x, n, inside, column, D, eps):
    """(x - mean) / deviation of the rows n [ROWS], and 1 / deviation; 0 where a row is not `inside`."""
    real = inside[:, None] & (column < D)[None, :]
    v = tl.load(x + n[:, None] * D + column[None, :], mask=real, other=0)
    mean = tl.sum(v, 1) / D
    v = tl.where(real, v - mean[:, None], 0)
    scale = 1 / tl.sqrt(tl.sum(v * v, 1) / D + eps)
    return v * scale[:, None], scale


@triton.jit
def _lag(x, state, gamma, beta, t, b, alive, column, B, D, eps, k: tl.constexpr, WIDTH: tl.constexpr):
    """lag[k] of the rows (t, b): n[t - k], or what the state holds of a step before the first one; 0 if not alive."""
    inside = alive & (t >= k)
    hat, _ = _normalise(x, (t - k) * B + b, inside, column, D, eps)
    lag = tl.where(inside[:, None], hat * gamma[None, :] + beta[None, :], 0)
    if k > 0:
        early = (alive & (t < k))[:, None] & (column < D)[None, :]
        before = state + (b * (WIDTH - 1) + k - 1 - t)[:, None] * D + column[None, :]
        lag += tl.load(before, mask=early, other=0)
    return lag


@triton.jit(do_not_specialize=["T"])
def _forward(
    x,
    state,
    start,
    gamma,
    beta,
    weight,
    bias,
    y,
    last,
    T,
    B,
    D,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.arange(0, COLUMNS)
    real = column < D
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    t, b = n // B, n % B
    alive = t < T
    size = tl.load(gamma + column, mask=real, other=0)
    shift = tl.load(beta + column, mask=real, other=0)
    place = n[:, None] * D + column[None, :]
    inside = alive[:, None] & real[None, :]
    at_end = (alive & (t == T - 1))[:, None] & real[None, :]
    total = tl.zeros([ROWS, COLUMNS], dtype=x.dtype.element_ty) + tl.load(bias + column, mask=real, other=0)[None, :]
    for k in tl.static_range(WIDTH):
        if k > 0:
            flag = tl.load(start + (t - k + 1) * B + b, mask=alive & (t >= k - 1), other=0)
            alive = alive & (flag == 0)
        lag = _lag(x, state, size, shift, t, b, alive, column, B, D, eps, k, WIDTH)
        total += lag * tl.load(weight + k * D + column, mask=real, other=0)[None, :]
        if k < WIDTH - 1:
            tl.store(last + (b * (WIDTH - 1) + k)[:, None] * D + column[None, :], lag, mask=at_end)
    tl.store(y + place, total, mask=inside)


@triton.jit(do_not_specialize=["T", "tiles"])
def _backward(
    dy,
    dlast,
    straight,
    x,
    state,
    start,
    gamma,
    beta,
    weight,
    dx,
    dstate,
    sums,
    T,
    B,
    D,
    tiles,
    eps,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.arange(0, COLUMNS)
    real = column < D
    size = tl.load(gamma + column, mask=real, other=0)
    shift = tl.load(beta + column, mask=real, other=0)
    number = tl.arange(0, PADDED)
    KIND: tl.constexpr = x.dtype.element_ty
    dweight = tl.zeros([PADDED, COLUMNS], dtype=KIND)
    dgamma = tl.zeros([COLUMNS], dtype=KIND)
    dbeta = tl.zeros([COLUMNS], dtype=KIND)
    dbias = tl.zeros([COLUMNS], dtype=KIND)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        t, b = row // B - (WIDTH - 1), row % B
        live = t < T
        here = live & (t >= 0)
        own = here[:, None] & real[None, :]
        place = (t * B + b)[:, None] * D + column[None, :]
        grad = tl.load(dy + place, mask=own, other=0)
        dbias += tl.sum(grad, 0)
        # what later steps say about n[t]: of step t + k, unless an episode starts in between
        dn = tl.zeros([ROWS, COLUMNS], dtype=KIND)
        alive, known = live, here
        for k in tl.static_range(WIDTH):
            later = t + k
            if k > 0:
                flag = tl.load(start + later * B + b, mask=alive & (later >= 0) & (later < T), other=0)
                alive = alive & (flag == 0)
                back = tl.load(start + (t - k + 1) * B + b, mask=known & (t >= k - 1), other=0)
                known = known & (back == 0)
            there = (alive & (later >= 0) & (later < T))[:, None] & real[None, :]
            factor = tl.load(weight + k * D + column, mask=real, other=0)[None, :]
            dn += factor * tl.load(dy + (later * B + b)[:, None] * D + column[None, :], mask=there, other=0)
            if k < WIDTH - 1 and dlast is not None:
                ends = (alive & (later == T - 1))[:, None] & real[None, :]
                late = dlast + (b * (WIDTH - 1) + k)[:, None] * D + column[None, :]
                dn += tl.load(late, mask=ends, other=0)
            lag = _lag(x, state, size, shift, t, b, known, column, B, D, eps, k, WIDTH)
            dweight += tl.where((number == k)[:, None], tl.sum(grad * lag, 0)[None, :], 0)
        early = (live & (t < 0))[:, None] & real[None, :]
        tl.store(dstate + (b * (WIDTH - 1) - 1 - t)[:, None] * D + column[None, :], dn, mask=early)
        hat, scale = _normalise(x, t * B + b, here, column, D, eps)
        dn = tl.where(own, dn, 0)
        dgamma += tl.sum(dn * hat, 0)
        dbeta += tl.sum(dn, 0)
        dhat = dn * size[None, :]
        mean, slope = tl.sum(dhat, 1) / D, tl.sum(dhat * hat, 1) / D
        found = scale[:, None] * (dhat - mean[:, None] - hat * slope[:, None])
        if straight is not None:
            found += tl.load(straight + place, mask=own, other=0)
        tl.store(dx + place, found, mask=own)
    first = sums + tl.program_id(0).to(tl.int64) * (WIDTH + 3) * D + column
    each = (number < WIDTH)[:, None] & real[None, :]
    tl.store(first[None, :] + number[:, None] * D, dweight, mask=each)
    tl.store(first + WIDTH * D, dgamma, mask=real)
    tl.store(first + (WIDTH + 1) * D, dbeta, mask=real)
    tl.store(first + (WIDTH + 2) * D, dbias, mask=real)
