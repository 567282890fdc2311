"""Triton kernels of choices: a program takes a tile of rows, and walks over their K choices."""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlmin.scan.gpu import use_device

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
_TILE = 1024  # numbers of a tile


def forward(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """log_prob and entropy: see `choices.choice_terms`."""
    logits, action = logits.contiguous(), action.contiguous()
    (*lead, K, n), N = logits.shape, logits.shape[:-2].numel()
    log_prob, entropy = logits.new_empty(lead), logits.new_empty(lead)
    rows, columns = tile_of(n)
    with use_device(logits.device):
        _forward[(triton.cdiv(N, rows),)](
            logits, action, log_prob, entropy, N, K, n, ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return log_prob, entropy


def backward(dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, action: Tensor) -> Tensor:
    """The gradient of `logits`."""
    dlog_prob, dentropy, logits, action = (x.contiguous() for x in (dlog_prob, dentropy, logits, action))
    (K, n), N = logits.shape[-2:], logits.shape[:-2].numel()
    dlogits, (rows, columns) = torch.empty_like(logits), tile_of(n)
    with use_device(logits.device):
        _backward[(triton.cdiv(N, rows),)](
            dlog_prob, dentropy, logits, action, dlogits, N, K, n, ROWS=rows, COLUMNS=columns, **OPTIONS
        )
    return dlogits


def tile_of(n: int) -> tuple[int, int]:
    """Rows and columns of a tile, for choices of n."""
    columns = triton.next_power_of_2(n)
    return max(1, min(128, _TILE // columns)), columns


@triton.jit
def _log_softmax(logits, place, alive, real):
    """log p and p of a tile, 0 in columns that are not `real`; rows that are not `alive` hold anything finite."""
    v = tl.load(logits + place, mask=alive[:, None] & real, other=0)
    v = tl.where(real, v - tl.max(tl.where(real, v, -float("inf")), 1)[:, None], 0)
    p = tl.where(real, tl.exp(v), 0)
    whole = tl.sum(p, 1)[:, None]
    return tl.where(real, v - tl.log(whole), 0), p / whole


@triton.jit(do_not_specialize=["N"])
def _forward(logits, action, log_prob, entropy, N, K, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    alive = row < N
    real = (column < n)[None, :]
    chosen = tl.zeros([ROWS], dtype=logits.dtype.element_ty)
    spread = tl.zeros([ROWS], dtype=logits.dtype.element_ty)
    for k in tl.range(0, K):
        log_p, p = _log_softmax(logits, (row * K + k)[:, None] * n + column[None, :], alive, real)
        taken = tl.load(action + row * K + k, mask=alive, other=0)
        chosen += tl.sum(tl.where(column[None, :] == taken[:, None], log_p, 0), 1)
        spread -= tl.sum(p * log_p, 1)
    tl.store(log_prob + row, chosen, mask=alive)
    tl.store(entropy + row, spread, mask=alive)


@triton.jit(do_not_specialize=["N"])
def _backward(dlog_prob, dentropy, logits, action, dlogits, N, K, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    alive = row < N
    real = (column < n)[None, :]
    of_action = tl.load(dlog_prob + row, mask=alive, other=0)[:, None]
    of_spread = tl.load(dentropy + row, mask=alive, other=0)[:, None]
    for k in tl.range(0, K):
        place = (row * K + k)[:, None] * n + column[None, :]
        log_p, p = _log_softmax(logits, place, alive, real)
        taken = tl.load(action + row * K + k, mask=alive, other=0)
        hit = tl.where(column[None, :] == taken[:, None], 1, 0)
        spread = -tl.sum(p * log_p, 1)[:, None]
        tl.store(dlogits + place, of_action * (hit - p) - of_spread * p * (log_p + spread), mask=alive[:, None] & real)
