"""Triton kernels of PPO's loss: one writes the slopes and the sums of each program, another one joins the sums.

With filler rows their number comes first, from torch. There are no atomics, so results repeat bit for bit.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlmin.scan.gpu import use_device

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
_BLOCK, _PROGRAMS = 512, 1024


def ppo_loss(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    unit: Tensor,
    settings: Tensor,
    weight: Tensor | None,
    old_value: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `ppo_loss.ppo_loss`."""
    N = log_prob.numel()
    blocks = triton.cdiv(N, _BLOCK)
    programs = min(blocks, _PROGRAMS)
    weight, old_value = (None if x is None else x.to(log_prob.dtype).contiguous() for x in (weight, old_value))
    count = None if weight is None else weight.sum().clamp(min=1)
    slopes = (torch.empty_like(log_prob), torch.empty_like(log_prob), torch.empty_like(log_prob))
    sums, measured = log_prob.new_empty(7, programs), log_prob.new_empty(8)
    inputs = (log_prob, entropy, value, old_log_prob, advantage, target, weight, old_value, count, unit, settings)
    with use_device(log_prob.device):
        _ppo_loss[(programs,)](*inputs, *slopes, sums, N, blocks, BLOCK=_BLOCK, **OPTIONS)
        padded = triton.next_power_of_2(programs)
        _join[(1,)](sums, settings, measured, count, N, programs, PROGRAMS=padded, **OPTIONS)
    return measured, *slopes


@triton.jit
def _rows(count, N, KIND: tl.constexpr):
    """The number of rows that count, in the dtype of the sums."""
    return tl.sum(tl.zeros([1], dtype=KIND) + N) if count is None else tl.load(count)


@triton.jit
def _divergence(x):
    """exp(x) - 1 - x, by its series near 0, where the difference would lose all digits."""
    near = x * x * (0.5 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720 + x / 5040)))))
    return tl.where(tl.abs(x) < 0.05, near, tl.exp(x) - 1 - x)


@triton.jit
def _value_error(v, t, unit, clip, old_value, place, alive):
    error = (v - t) / unit
    seen = error
    slope = error
    if old_value is not None:
        old = tl.load(old_value + place, mask=alive, other=0)
        far = (v - old) / unit
        held = tl.minimum(tl.maximum(far, -clip), clip) + (old - t) / unit
        larger = (tl.abs(far) > clip) & (held * held > error * error)
        seen = tl.where(larger, held, error)
        slope = tl.where(larger, 0, error)
    return seen * seen / 2, slope / unit


@triton.jit(do_not_specialize=["N", "blocks"])
def _ppo_loss(
    log_prob,
    entropy,
    value,
    old_log_prob,
    advantage,
    target,
    weight,
    old_value,
    count,
    unit,
    settings,
    dlog_prob,
    dentropy,
    dvalue,
    sums,
    N,
    blocks,
    BLOCK: tl.constexpr,
):
    KIND: tl.constexpr = log_prob.dtype.element_ty
    clip = tl.load(settings)
    penalty_weight = tl.load(settings + 1)
    value_weight = tl.load(settings + 2)
    entropy_weight = tl.load(settings + 3)
    value_clip = tl.load(settings + 4)
    scale = tl.load(unit)
    free = tl.log(1 + clip)
    share = 1 / _rows(count, N, KIND)
    gain_sum = tl.zeros([BLOCK], dtype=KIND)
    error_sum = tl.zeros([BLOCK], dtype=KIND)
    spread_sum = tl.zeros([BLOCK], dtype=KIND)
    excess_sum = tl.zeros([BLOCK], dtype=KIND)
    kl_sum = tl.zeros([BLOCK], dtype=KIND)
    off_sum = tl.zeros([BLOCK], dtype=KIND)
    kl_max = tl.zeros([BLOCK], dtype=KIND)
    for block in tl.range(tl.program_id(0), blocks, tl.num_programs(0)):
        place = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        alive = place < N
        real = alive
        if weight is not None:
            real = alive & (tl.load(weight + place, mask=alive, other=0) > 0)
        x = tl.load(log_prob + place, mask=alive, other=0) - tl.load(old_log_prob + place, mask=alive, other=0)
        x = tl.where(real, x, 0)
        gain = tl.load(advantage + place, mask=real, other=0)
        ratio = tl.exp(x)
        whole = ratio * gain
        cut = tl.minimum(tl.maximum(ratio, 1 - clip), 1 + clip) * gain
        free_way = ((ratio >= 1 - clip) & (ratio <= 1 + clip)) | (whole < cut)
        # a comparison with NaN is false: the sum passes it on, as torch's minimum does
        gain_sum += tl.where(whole < cut, whole, tl.where(whole == whole, cut, whole))
        excess = tl.abs(x) - free
        excess = tl.where(excess < 0, 0, excess)
        sign = tl.where(x < 0, -1, 1)
        v = tl.load(value + place, mask=real, other=0)
        t = tl.load(target + place, mask=real, other=0)
        error, slope = _value_error(v, t, scale, value_clip, old_value, place, real)
        kl = _divergence(x)
        error_sum += error
        spread_sum += tl.load(entropy + place, mask=real, other=0)
        excess_sum += excess * excess
        kl_sum += kl
        off_sum += tl.where(real & (tl.abs(ratio - 1) > clip), 1, 0)
        kl_max = tl.where(kl <= kl_max, kl_max, kl)
        part = tl.where(real, share, 0)
        grad = part * (penalty_weight * excess * sign - tl.where(free_way, whole, 0))
        tl.store(dlog_prob + place, grad, mask=alive)
        tl.store(dentropy + place, -entropy_weight * part, mask=alive)
        tl.store(dvalue + place, value_weight * part * slope, mask=alive)
    own = sums + tl.program_id(0)
    stride = tl.num_programs(0)
    tl.store(own, tl.sum(gain_sum))
    tl.store(own + stride, tl.sum(error_sum))
    tl.store(own + 2 * stride, tl.sum(spread_sum))
    tl.store(own + 3 * stride, tl.sum(excess_sum))
    tl.store(own + 4 * stride, tl.sum(kl_sum))
    tl.store(own + 5 * stride, tl.sum(off_sum))
    tl.store(own + 6 * stride, tl.max(kl_max))


@triton.jit(do_not_specialize=["N", "programs"])
def _join(sums, settings, measured, count, N, programs, PROGRAMS: tl.constexpr):
    place = tl.arange(0, PROGRAMS)
    own = place < programs
    rows = _rows(count, N, sums.dtype.element_ty)
    policy = -tl.sum(tl.load(sums + place, mask=own, other=0)) / rows
    critic = tl.sum(tl.load(sums + programs + place, mask=own, other=0)) / rows
    spread = tl.sum(tl.load(sums + 2 * programs + place, mask=own, other=0)) / rows
    penalty = tl.sum(tl.load(sums + 3 * programs + place, mask=own, other=0)) / rows / 2
    kl = tl.sum(tl.load(sums + 4 * programs + place, mask=own, other=0)) / rows
    off = tl.sum(tl.load(sums + 5 * programs + place, mask=own, other=0)) / rows
    largest = tl.max(tl.load(sums + 6 * programs + place, mask=own, other=0))
    weighted = tl.load(settings + 1) * penalty + tl.load(settings + 2) * critic - tl.load(settings + 3) * spread
    tl.store(measured, policy + weighted)
    tl.store(measured + 1, policy)
    tl.store(measured + 2, critic)
    tl.store(measured + 3, spread)
    tl.store(measured + 4, penalty)
    tl.store(measured + 5, kl)
    tl.store(measured + 6, off)
    tl.store(measured + 7, largest)
