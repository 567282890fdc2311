"""LayerNorm and causal convolution as one operation, away from the CPU's own loops: the way into a mixer on a GPU.

    n = (x - mean) / sqrt(var + eps) * gamma + beta
    y[t] = bias + sum over k < width of weight[k] * lag[k][t]          lags of n, see `causal_conv.py`

torch needs more than a hundred operations for this pair in a gradient step, which are a third of its launches and half
of its bytes (`rlmin bench count`). Triton does it in one launch forward and two backward (`norm_conv_gpu.py`); without
Triton, torch's operations run inside. Only x is kept for the backward pass. First derivatives only.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm

from rlmin.kernels.causal_conv import convolve, convolve_backward
from rlmin.scan.dispatch import kernel_for


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether `x` can go through `norm_conv` with weights like `weight`.

    Not on the CPU with numba, which has loops of its own, nor under autocast, nor under `torch.compile`, which fuses
    such operations.
    """
    return (
        x.device.type in ("cpu", "cuda")
        and x.shape[0] > 0
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype is weight.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
        and kernel_for(x.device).__name__ != "rlmin.scan.cpu"
    )


def norm_conv(
    x: Tensor, norm: nn.LayerNorm, state: Tensor, start: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """conv(norm(x)): see `rlmin.encoders.CausalConv`.

    Args:
        x: [T, B, D], T >= 1, or [B, D] for one step.
        norm: over D, with weight and bias.
        state: [B, width - 1, D].
        start: [T, B] or [B] bool.
        weight, bias: of the convolution, [width, D] and [D].

    Returns:
        y as x, and the state after it.
    """
    if x.dim() == 2:
        y, last = norm_conv(x.unsqueeze(0), norm, state, start.unsqueeze(0), weight, bias)
        return y.squeeze(0), last
    tensors = (x, state, start, norm.weight, norm.bias, weight, bias)
    if torch.is_grad_enabled():
        y, last = _NormConv.apply(*tensors, norm.eps)  # type: ignore[no-untyped-call]
        return y, last
    y, last = torch.ops.rlmin.norm_conv_forward(*tensors, norm.eps)
    return y, last


class _NormConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, ctx.eps = inputs
        y, last = torch.ops.rlmin.norm_conv_forward(*tensors, ctx.eps)
        ctx.save_for_backward(*tensors[:-1])
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        found = torch.ops.rlmin.norm_conv_backward(dy, dlast, *ctx.saved_tensors, ctx.eps)
        dx, dstate, dgamma, dbeta, dweight, dbias = found
        return dx, dstate, None, dgamma, dbeta, dweight, dbias, None


def _forward(
    x: Tensor, state: Tensor, start: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    gpu = _load_gpu(x)
    if gpu is not None:
        y, last = gpu.forward(x, state, start, gamma, beta, weight, bias, eps)
        return y, last
    return convolve(layer_norm(x, gamma.shape, gamma, beta, eps), state, start, weight, bias)


def _backward(
    dy: Tensor,
    dlast: Tensor,
    x: Tensor,
    state: Tensor,
    start: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    eps: float,
) -> tuple[Tensor, ...]:
    gpu = _load_gpu(x)
    if gpu is not None:
        found: tuple[Tensor, ...] = gpu.backward(dy, dlast, x, state, start, gamma, beta, weight, eps)
        return found
    n, mean, rstd = torch.native_layer_norm(x, gamma.shape, gamma, beta, eps)
    dn, dstate, dweight, dbias = convolve_backward(dy, dlast, n, state, start, weight)
    of_norm = torch.ops.aten.native_layer_norm_backward(dn, x, gamma.shape, mean, rstd, gamma, beta, [True, True, True])
    dx, dgamma, dbeta = of_norm
    return dx, dstate, dgamma, dbeta, dweight, dbias


def _load_gpu(x: Tensor) -> ModuleType | None:
    """Triton's kernels where scans of `x` use Triton, too."""
    if kernel_for(x.device).__name__ != "rlmin.scan.gpu":
        return None
    from rlmin.kernels import norm_conv_gpu  # Triton may be missing, and is slow to import

    return norm_conv_gpu


def _fake_forward(x: Tensor, state: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(state)


def _fake_backward(dy: Tensor, dlast: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
    x, state, _, gamma, beta, weight, _ = tensors
    return tuple(torch.empty_like(like) for like in (x, state, gamma, beta, weight, gamma))


_INPUTS = "Tensor x, Tensor state, Tensor start, Tensor gamma, Tensor beta, Tensor weight"
_LIBRARY: Any = torch.library.Library("rlmin", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"norm_conv_forward({_INPUTS}, Tensor bias, float eps) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"norm_conv_backward(Tensor dy, Tensor dlast, {_INPUTS}, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
for _name, _function, _fake in (("forward", _forward, _fake_forward), ("backward", _backward, _fake_backward)):
    _LIBRARY.impl(f"norm_conv_{_name}", _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"rlmin::norm_conv_{_name}", _fake, lib=_LIBRARY)
