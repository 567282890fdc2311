"""LayerNorm and causal convolution as one operation, away from the CPU's own loops: the way into a mixer on a GPU.

    n = (x - mean) / sqrt(var + eps) * gamma + beta
    y[t] = bias + sum over k < width of weight[k] * lag[k][t]          lags of n, see `causal_conv.py`

torch needs more than a hundred operations for this pair in a gradient step, which are a third of its launches and half
of its bytes (`rlmin bench count`). Triton does it in one launch forward and two backward (`norm_conv_gpu.py`); without
Triton, torch's operations run inside. Only x is kept for the backward pass. First derivatives only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm

from rlmin.kernels.causal_conv import convolve, convolve_backward
from rlmin.kernels.operators import define, load_gpu
from rlmin.kernels.operators import usable as usable


def norm_conv(
    x: Tensor, norm: nn.LayerNorm, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """conv(norm(x)): see `rlmin.encoders.CausalConv`; in float32 under autocast, as the modules of torch.

    x comes back, too. Whoever adds to it adds to that one: then the sum of the two gradients of x is made by the
    backward kernel, and not in a pass of its own.

    Args:
        x: [T, B, D], T >= 1, or [B, D] for one step.
        norm: over D, with weight and bias.
        state: [B, width - 1, D].
        start: [T, B] or [B] bool.
        weight, bias: of the convolution, [width, D] and [D].

    Returns:
        y as x, the state after it, and x.
    """
    if x.dtype is not norm.weight.dtype:
        return *norm_conv(x.to(norm.weight.dtype), norm, state, start, weight, bias)[:2], x
    if x.dim() == 2:
        y, last, x = norm_conv(x.unsqueeze(0), norm, state, start.unsqueeze(0), weight, bias)
        return y.squeeze(0), last, x.squeeze(0)
    tensors = (x, state, start, norm.weight, norm.bias, weight, bias)
    if torch.is_grad_enabled():
        y, last, x = _NormConv.apply(*tensors, norm.eps)  # type: ignore[no-untyped-call]
        return y, last, x
    y, last = _forward_operator(*tensors, norm.eps)
    return y, last, x


class _NormConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        *tensors, ctx.eps = inputs
        y, last = _forward_operator(*tensors, ctx.eps)
        ctx.save_for_backward(*tensors[:-1])
        ctx.set_materialize_grads(False)
        x = tensors[0]
        return y, last, x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dlast: Tensor | None, straight: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        dy = torch.zeros_like(ctx.saved_tensors[0]) if dy is None else dy
        found = _backward_operator(dy, dlast, straight, *ctx.saved_tensors, ctx.eps)
        dx, dstate, dgamma, dbeta, dweight, dbias = found
        return dx, dstate, None, dgamma, dbeta, dweight, dbias, None


def _forward(
    x: Tensor, state: Tensor, start: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    gpu = load_gpu("norm_conv_gpu", x.device)
    if gpu is not None:
        y, last = gpu.forward(x, state, start, gamma, beta, weight, bias, eps)
        return y, last
    return convolve(layer_norm(x, gamma.shape, gamma, beta, eps), state, start, weight, bias)


def _backward(
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
    gpu = load_gpu("norm_conv_gpu", x.device)
    if gpu is not None:
        found: tuple[Tensor, ...] = gpu.backward(dy, dlast, straight, x, state, start, gamma, beta, weight, eps)
        return found
    n, mean, rstd = torch.native_layer_norm(x, gamma.shape, gamma, beta, eps)
    late = torch.zeros_like(state) if dlast is None else dlast
    dn, dstate, dweight, dbias = convolve_backward(dy, late, n, state, start, weight)
    of_norm = torch.ops.aten.native_layer_norm_backward(dn, x, gamma.shape, mean, rstd, gamma, beta, [True, True, True])
    dx, dgamma, dbeta = of_norm
    return dx if straight is None else dx + straight, dstate, dgamma, dbeta, dweight, dbias


def _fake_forward(x: Tensor, state: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(state)


def _fake_backward(dy: Tensor, dlast: Tensor | None, straight: Tensor | None, *tensors: Any) -> tuple[Tensor, ...]:
    x, state, _, gamma, beta, weight, _ = tensors
    return tuple(torch.empty_like(like) for like in (x, state, gamma, beta, weight, gamma))


_INPUTS = "Tensor x, Tensor state, Tensor start, Tensor gamma, Tensor beta, Tensor weight"
_forward_operator = define(
    f"norm_conv_forward({_INPUTS}, Tensor bias, float eps) -> (Tensor, Tensor)", _forward, _fake_forward
)
_backward_operator = define(
    f"norm_conv_backward(Tensor dy, Tensor? dlast, Tensor? straight, {_INPUTS}, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
