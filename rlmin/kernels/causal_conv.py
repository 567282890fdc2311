"""The causal depthwise convolution of torch operations, for any device, and its derivative.

y[t] = bias + sum over k < width of weight[k] * lag[k][t]
lag[0] = x,   lag[k][t] = lag[k-1][t-1], or 0 where start[t];   before the first step stands the state
"""

import torch
from torch import Tensor


def convolve(x: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over lags, in one pass per lag.

    Args:
        x: [T, B, D].
        state: [B, width - 1, D] inputs before x[0], newest first.
        start: [T, B] bool.
        weight, bias: [width, D] and [D].

    Returns:
        y [T, B, D], and the state after it.
    """
    start = start.unsqueeze(-1)
    lag, y, last = x, torch.addcmul(bias, x, weight[0]), [x[-1]]
    for k in range(1, len(weight)):
        lag = _older(lag, state[:, k - 1], start)
        y.addcmul_(lag, weight[k])
        last.append(lag[-1])
    return y, torch.stack(last[:-1], dim=1)


def convolve_backward(
    dy: Tensor, dlast: Tensor, x: Tensor, state: Tensor, start: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, state, weight and bias; the lags are rebuilt, so that a forward pass keeps x alone."""
    start = start.unsqueeze(-1)
    lags = [x]
    for k in range(1, len(weight)):
        lags.append(_older(lags[-1], state[:, k - 1], start))
    dweight = torch.stack([(dy * lag).sum((0, 1)) for lag in lags])
    dstate = torch.empty_like(state)
    dlag = dy * weight[-1]
    for k in range(len(weight) - 1, 0, -1):  # lag k at t came from lag k - 1 at t - 1
        dlag.masked_fill_(start, 0)
        dstate[:, k - 1] = dlag[0]
        younger = dy * weight[k - 1]
        younger[:-1] += dlag[1:]
        younger[-1] += dlast[:, k - 1]
        dlag = younger
    return dlag, dstate, dweight, dy.sum((0, 1))


def _older(lag: Tensor, first: Tensor, start: Tensor) -> Tensor:
    """`lag` one step later: [T, B, D], `first` [B, D] entering at 0, wiped where `start` [T, B, 1]."""
    out = torch.empty_like(lag)
    zero = lag.new_zeros(())
    torch.where(start[0], zero, first, out=out[0])
    torch.where(start[1:], zero, lag[:-1], out=out[1:])
    return out
