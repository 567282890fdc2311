"""The Triton kernels for few lanes and much time: a tile of ROWS steps is one parallel scan, tile after tile.

A step is a map before -> after of the state, and maps compose. A map is stored as three numbers:

    before + (add - drop * before)   or, for a linear scan,   keep * before + add       and just `add` if it is cut

`drop`, the share that is overwritten, composes as precisely as in the sequential kernel; its complement would round
1 - 1e-8 to 1. The cut is a flag and not a factor of 0, because 0 * NaN is NaN. Steps past the end are the
identity.

A scan backwards in time reads its rows in that order; `tl.associative_scan` itself always runs forwards.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from rlmin.scan.gpu_math import GRU, LINEAR, LSTM, activate, activate_and_slope, place, shares, sigmoids


@triton.jit
def _then_gated(drop, add, later_drop, later_add):
    return drop + (later_drop - drop * later_drop), add + (later_add - later_drop * add)


@triton.jit
def _then_gated_or_cut(drop, add, cut, later_drop, later_add, later_cut):
    both = drop + (later_drop - drop * later_drop)
    added = add + (later_add - later_drop * add)
    alone = later_cut != 0
    return tl.where(alone, later_drop, both), tl.where(alone, later_add, added), cut | later_cut


@triton.jit
def _then_linear(keep, add, later_keep, later_add):
    return keep * later_keep, later_keep * add + later_add


@triton.jit
def _then_linear_or_cut(keep, add, cut, later_keep, later_add, later_cut):
    both, added = keep * later_keep, later_keep * add + later_add
    alone = later_cut != 0
    return tl.where(alone, later_keep, both), tl.where(alone, later_add, added), cut | later_cut


@triton.jit
def _states(factor, add, carry, KIND: tl.constexpr):
    """The state after each row of the tile, [ROWS, BLOCK], from `carry` [BLOCK] before the first."""
    before = carry[None, :]
    if KIND == LINEAR:
        keep, added = tl.associative_scan((factor, add), 0, _then_linear)
        after = keep * before + added
    else:
        drop, added = tl.associative_scan((factor, add), 0, _then_gated)
        after = before + (added - drop * before)
    return after


@triton.jit
def _states_with_cuts(factor, add, cut, carry, KIND: tl.constexpr):
    before = carry[None, :]
    if KIND == LINEAR:
        keep, added, alone = tl.associative_scan((factor, add, cut), 0, _then_linear_or_cut)
        after = keep * before + added
    else:
        drop, added, alone = tl.associative_scan((factor, add, cut), 0, _then_gated_or_cut)
        after = before + (added - drop * before)
    return tl.where(alone != 0, added, after)


@triton.jit
def _last_row(x, ROWS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == ROWS - 1, x, 0), axis=0)


@triton.jit
def _cuts(start, time, stride, mask):
    return (tl.load(start + time * stride, mask=mask, other=0) != 0).to(tl.int32)


@triton.jit
def _gates(x0, x1, time, x0_t, x1_t, mask, CARRY: tl.constexpr, KIND: tl.constexpr):
    """(write, keep, shut_forget, shut_input) of a gated scan at some times; the last two belong to a minLSTM only."""
    k = tl.load(x0 + time * x0_t, mask=mask, other=0).to(CARRY)
    if KIND == LSTM:
        gate = tl.load(x1 + time * x1_t, mask=mask, other=0).to(CARRY)
        write, keep, shut_forget, shut_input = shares(k, gate)
    else:
        write, keep = sigmoids(k)
        shut_forget, shut_input = write, keep
    return write, keep, shut_forget, shut_input


@triton.jit
def _factor(x0, x1, time, x0_t, x1_t, mask, CARRY: tl.constexpr, KIND: tl.constexpr):
    """`keep` of a linear scan, `drop` of a gated one; where the mask is off, that of the identity."""
    if KIND == LINEAR:
        keep = tl.load(x0 + time * x0_t, mask=mask, other=0).to(CARRY)
        factor = tl.where(mask, keep, 1)
    else:
        write, _keep, _forget, _input = _gates(x0, x1, time, x0_t, x1_t, mask, CARRY, KIND)
        factor = tl.where(mask, write, 0)
    return factor


@triton.jit(do_not_specialize=["T"])
def forward(
    x0,
    x1,
    value,
    state,
    start,
    h,
    last,
    T,
    N,
    D,
    x0_t,
    x0_b,
    x1_t,
    x1_b,
    value_t,
    value_b,
    start_t,
    start_b,
    KIND: tl.constexpr,
    ACTIVATION: tl.constexpr,
    REVERSE: tl.constexpr,
    ONE_ROW: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    CARRY: tl.constexpr = state.dtype.element_ty
    lane, row, column = place(D, BLOCK, ONE_ROW)
    live = lane < N
    x0 += (row * x0_b + column)[None, :]
    value += (row * value_b + column)[None, :]
    if KIND == LSTM:
        x1 += (row * x1_b + column)[None, :]
    if start is not None:
        start += (row * start_b + column * 0)[None, :]
    carry = tl.load(state + lane, mask=live, other=0)
    for i in tl.range(0, T, STEPS, num_stages=STAGES):
        s = i + tl.arange(0, STEPS)
        time = (T - 1 - s if REVERSE else s).to(tl.int64)[:, None]
        inside = (s < T)[:, None] & live[None, :]
        factor = _factor(x0, x1, time, x0_t, x1_t, inside, CARRY, KIND)
        add = tl.load(value + time * value_t, mask=inside, other=0).to(CARRY)
        if KIND != LINEAR:
            add = tl.where(inside, factor * activate(add, ACTIVATION), 0)
        if start is not None:
            cut = _cuts(start, time, start_t, inside)
            after = _states_with_cuts(factor, add, cut, carry, KIND)
        else:
            after = _states(factor, add, carry, KIND)
        tl.store(h + time * N + lane[None, :], after, mask=inside)
        carry = _last_row(after, STEPS)
    tl.store(last + lane, carry, mask=live)


@triton.jit(do_not_specialize=["T"])
def backward(
    grad_h,
    grad_last,
    x0,
    x1,
    value,
    state,
    start,
    h,
    grad_x0,
    grad_x1,
    grad_value,
    grad_state,
    T,
    N,
    D,
    grad_t,
    grad_b,
    x0_t,
    x0_b,
    x1_t,
    x1_b,
    value_t,
    value_b,
    start_t,
    start_b,
    KIND: tl.constexpr,
    ACTIVATION: tl.constexpr,
    REVERSE: tl.constexpr,
    ONE_ROW: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # The carry is g[t+1] of `gradients.py`, so a row needs the gates of the step after it as well as its own.
    CARRY: tl.constexpr = state.dtype.element_ty
    lane, row, column = place(D, BLOCK, ONE_ROW)
    live = lane < N
    x0 += (row * x0_b + column)[None, :]
    if KIND != LINEAR:
        value += (row * value_b + column)[None, :]
    if KIND == LSTM:
        x1 += (row * x1_b + column)[None, :]
    if start is not None:
        start += (row * start_b + column * 0)[None, :]
    if grad_h is not None:
        grad_h += (row * grad_b + column)[None, :]
    initial = tl.load(state + lane, mask=live, other=0)[None, :]
    carry = tl.zeros((BLOCK,), CARRY)
    if grad_last is not None:
        carry += tl.load(grad_last + lane, mask=live, other=0).to(CARRY)
    for i in tl.range(0, T, STEPS, num_stages=STAGES):
        s = i + tl.arange(0, STEPS)
        time = (T - 1 - s if REVERSE else s).to(tl.int64)[:, None]
        later, before = (time + 1, time - 1) if REVERSE else (time - 1, time + 1)
        inside = (s < T)[:, None] & live[None, :]
        followed = inside & (s > 0)[:, None]
        factor = _factor(x0, x1, later, x0_t, x1_t, followed, CARRY, KIND)
        add = tl.zeros((STEPS, BLOCK), CARRY)
        if grad_h is not None:
            add += tl.load(grad_h + time * grad_t, mask=inside, other=0).to(CARRY)
        if start is not None:
            cut = _cuts(start, later, start_t, followed)
            total = _states_with_cuts(factor, add, cut, carry, KIND)
        else:
            total = _states(factor, add, carry, KIND)
        carry = _last_row(total, STEPS)

        preceded = (s + 1 < T)[:, None] & live[None, :]
        past = tl.load(h + before * N + lane[None, :], mask=preceded, other=0).to(CARRY)
        past = tl.where(preceded, past, initial)
        if start is not None:
            past = tl.where(_cuts(start, time, start_t, inside) != 0, 0, past)
        here = time * N + lane[None, :]
        if KIND == LINEAR:
            tl.store(grad_x0 + here, total * past, mask=inside)
            tl.store(grad_value + here, total, mask=inside)
        else:
            v = tl.load(value + time * value_t, mask=inside, other=0).to(CARRY)
            c, slope = activate_and_slope(v, ACTIVATION)
            write, keep, shut_forget, shut_input = _gates(x0, x1, time, x0_t, x1_t, inside, CARRY, KIND)
            grad_k = total * keep * write * (c - past)
            tl.store(grad_value + here, total * write * slope, mask=inside)
            if KIND == GRU:
                tl.store(grad_x0 + here, grad_k, mask=inside)
            else:
                tl.store(grad_x0 + here, -grad_k * shut_forget, mask=inside)
                tl.store(grad_x1 + here, grad_k * shut_input, mask=inside)

    first = (0 * T if REVERSE else T - 1).to(tl.int64)
    stepped = lane[None, :] < tl.where(T > 0, N, 0)
    factor = _factor(x0, x1, first, x0_t, x1_t, stepped, CARRY, KIND)
    sent = carry[None, :]
    sent = sent * factor if KIND == LINEAR else sent - factor * sent
    if start is not None:
        sent = tl.where(_cuts(start, first, start_t, stepped) != 0, 0, sent)
    tl.store(grad_state + lane[None, :], sent, mask=live[None, :])
