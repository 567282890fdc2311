"""A causal depthwise convolution over the last few steps of an episode: memory by position, before any gate."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlmin.encoders.base import Encoder, one, wipe
from rlmin.settings import Size
from rlmin.settings.boundary import checked
from rlmin.types import State


class CausalConv(Encoder):
    """Each feature, mixed with its own last values in the same episode.

        y[t] = bias + sum over k < width of weight[k] * lag[k][t]
        lag[0] = x,   lag[k][t] = lag[k-1][t-1], or 0 where start[t]

    A gated average knows what was seen but hardly when; the lags tell when. The weights start near the identity
    (weight[0] around 1, the others small), so a block begins like one without a convolution.

    Args:
        size: D, features of x and of y.
        width: steps in view, the current one included; at least 2.

    Attributes:
        weight: [width, D]; bias: [D].

    The state holds the last inputs, [B, width - 1, D], newest first; zero before the start of the episode.
    """

    @checked
    def __init__(self, size: Size, *, width: Size = 4) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width: expected at least 2, got {width}")
        self.input_size = self.output_size = size
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, size).normal_(std=0.1))
        self.bias = nn.Parameter(torch.zeros(size))
        with torch.no_grad():
            self.weight[0] += 1

    def initial_state(self, B: int) -> Tensor:
        """[B, width - 1, D] zeros."""
        return self.zeros(B, self.width - 1, self.input_size)

    def forward(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.forward` with `state` [B, width - 1, D]; first derivatives only."""
        self.check_input(x, start, state)
        before = one(state)
        x = x.to(before.dtype)
        y, after = _CausalConv.apply(x, before, start, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y, after

    def step(self, x: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """`Encoder.step` with `state` [B, width - 1, D]."""
        before = wipe(one(state), start)
        seen = torch.cat([x.to(before.dtype).unsqueeze(1), before], dim=1)
        return (seen * self.weight).sum(1) + self.bias, seen[:, :-1]


def older(lag: Tensor, first: Tensor, start: Tensor) -> Tensor:
    """`lag` one step later: [T, B, D], `first` [B, D] entering at 0, wiped where `start` [T, B, 1]."""
    out = torch.empty_like(lag)
    zero = lag.new_zeros(())
    torch.where(start[0], zero, first, out=out[0])
    torch.where(start[1:], zero, lag[:-1], out=out[1:])
    return out


class _CausalConv(torch.autograd.Function):
    """The sum over lags, in one pass per lag, keeping only x: the lags are rebuilt in backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        start = start.unsqueeze(-1)
        lag, y, last = x, torch.addcmul(bias, x, weight[0]), [x[-1]]
        for k in range(1, len(weight)):
            lag = older(lag, state[:, k - 1], start)
            y.addcmul_(lag, weight[k])
            last.append(lag[-1])
        ctx.save_for_backward(x, state, start, weight)
        return y, torch.stack(last[:-1], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        x, state, start, weight = ctx.saved_tensors
        lags = [x]
        for k in range(1, len(weight)):
            lags.append(older(lags[-1], state[:, k - 1], start))
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
        return dlag, dstate, None, dweight, dy.sum((0, 1))
