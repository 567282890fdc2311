"""A causal depthwise convolution over the last few steps of an episode: memory by position, before any gate."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlmin.encoders.base import Encoder, one, wipe
from rlmin.kernels.causal_conv import convolve, convolve_backward
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


class _CausalConv(torch.autograd.Function):
    """The sum over lags, keeping only x: the lags are rebuilt in backward."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors[:-1])
        return convolve(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        dx, dstate, dweight, dbias = convolve_backward(dy, dlast, *ctx.saved_tensors)
        return dx, dstate, None, dweight, dbias
