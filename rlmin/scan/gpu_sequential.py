"""The Triton kernels that walk through time, one thread for a few lanes (row, channel), the carry in registers.

A step costs no more than its loads, so the loop is built around them: STEPS steps form one iteration, whose loads do
not depend on the carry, and Triton keeps the loads of STAGES iterations in flight (cp.async into shared memory if
pointers and strides are multiples of 16). The code itself fetches the flags of the next iteration ahead, as single
bytes are too narrow for cp.async.

Steps past the end load nothing, store nothing and do not change the carry. A mask is one comparison with a number of
lanes, which is 0 past the end; in this form it vectorises. Times have 64 bits because they multiply strides.
"""

# Triton gives the types when it compiles.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from rlmin.scan.gpu_math import GRU, LINEAR, LSTM, activate, activate_and_slope, place, shares, sigmoids


@triton.jit
def _flags(start, first, T, stride, lane, N, STEPS: tl.constexpr, REVERSE: tl.constexpr, ONE_ROW: tl.constexpr):
    """The flags of the steps first, first + 1, ... as bits 0, 1, ...; a scalar where the lanes share a row."""
    bits = 0
    for j in tl.static_range(STEPS):
        s = first + j
        t = (T - 1 - s if REVERSE else s).to(tl.int64)
        mask = s < T if ONE_ROW else lane < tl.where(s < T, N, 0)
        flag = tl.load(start + t * stride, mask=mask, other=0)
        bits = bits | ((flag != 0).to(tl.int32) << j)
    return bits


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
    x0 += row * x0_b + column
    value += row * value_b + column
    if KIND == LSTM:
        x1 += row * x1_b + column
    h += lane
    carry = tl.load(state + lane, mask=live, other=0)
    if start is not None:
        start += row * start_b
        bits = _flags(start, 0, T, start_t, lane, N, STEPS, REVERSE, ONE_ROW)
    for i in tl.range(0, T, STEPS, num_stages=STAGES):
        if start is not None:
            ahead = _flags(start, i + STEPS, T, start_t, lane, N, STEPS, REVERSE, ONE_ROW)
        for j in tl.static_range(STEPS):
            s = i + j
            t = (T - 1 - s if REVERSE else s).to(tl.int64)
            inside = lane < tl.where(s < T, N, 0)
            k = tl.load(x0 + t * x0_t, mask=inside, other=0).to(CARRY)
            v = tl.load(value + t * value_t, mask=inside, other=0).to(CARRY)
            before = carry
            if start is not None:
                before = tl.where(((bits >> j) & 1) != 0, 0, carry)
            if KIND == LINEAR:
                after = k * before + v
            elif KIND == GRU:
                after = before + sigmoids(k)[0] * (activate(v, ACTIVATION) - before)
            else:
                gate = tl.load(x1 + t * x1_t, mask=inside, other=0).to(CARRY)
                after = before + shares(k, gate)[0] * (activate(v, ACTIVATION) - before)
            carry = tl.where(s < T, after, carry)
            tl.store(h + t * N, carry, mask=inside)
        if start is not None:
            bits = ahead
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
    # The carry is keep[t+1] * g[t+1] of `gradients.py`, the gradient from later steps. REVERSE: direction of this walk.
    CARRY: tl.constexpr = state.dtype.element_ty
    lane, row, column = place(D, BLOCK, ONE_ROW)
    live = lane < N
    x0 += row * x0_b + column
    if KIND != LINEAR:
        value += row * value_b + column
    if KIND == LSTM:
        x1 += row * x1_b + column
    if grad_h is not None:
        grad_h += row * grad_b + column
    initial = tl.load(state + lane, mask=live, other=0)
    carry = tl.zeros((BLOCK,), CARRY)
    if grad_last is not None:
        carry += tl.load(grad_last + lane, mask=live, other=0).to(CARRY)
    if start is not None:
        start += row * start_b
        bits = _flags(start, 0, T, start_t, lane, N, STEPS, REVERSE, ONE_ROW)
    for i in tl.range(0, T, STEPS, num_stages=STAGES):
        if start is not None:
            ahead = _flags(start, i + STEPS, T, start_t, lane, N, STEPS, REVERSE, ONE_ROW)
        for j in tl.static_range(STEPS):
            s = i + j
            t = (T - 1 - s if REVERSE else s).to(tl.int64)
            inside = lane < tl.where(s < T, N, 0)
            k = tl.load(x0 + t * x0_t, mask=inside, other=0).to(CARRY)
            before = t - 1 if REVERSE else t + 1
            preceded = lane < tl.where(s + 1 < T, N, 0)
            past = tl.load(h + before * N + lane, mask=preceded, other=0).to(CARRY)
            past = tl.where(s + 1 < T, past, initial)
            total = carry
            if grad_h is not None:
                total += tl.load(grad_h + t * grad_t, mask=inside, other=0).to(CARRY)
            if start is not None:
                cut = ((bits >> j) & 1) != 0
                past = tl.where(cut, 0, past)
            here = t * N + lane
            if KIND == LINEAR:
                sent = total * k
                tl.store(grad_x0 + here, total * past, mask=inside)
                tl.store(grad_value + here, total, mask=inside)
            else:
                v = tl.load(value + t * value_t, mask=inside, other=0).to(CARRY)
                c, slope = activate_and_slope(v, ACTIVATION)
                if KIND == GRU:
                    write, keep = sigmoids(k)
                else:
                    gate = tl.load(x1 + t * x1_t, mask=inside, other=0).to(CARRY)
                    write, keep, shut_forget, shut_input = shares(k, gate)
                sent = total - write * total  # as in the forward pass: `keep` would round 1 - 1e-8 to 1
                grad_k = total * keep * write * (c - past)
                tl.store(grad_value + here, total * write * slope, mask=inside)
                if KIND == GRU:
                    tl.store(grad_x0 + here, grad_k, mask=inside)
                else:
                    tl.store(grad_x0 + here, -grad_k * shut_forget, mask=inside)
                    tl.store(grad_x1 + here, grad_k * shut_input, mask=inside)
            if start is not None:
                sent = tl.where(cut, 0, sent)
            carry = tl.where(s < T, sent, carry)
        if start is not None:
            bits = ahead
    tl.store(grad_state + lane, carry, mask=live)
