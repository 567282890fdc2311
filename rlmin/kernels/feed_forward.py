"""The feed-forward half of a block away from the CPU's own loops: few passes over memory between matrix products.

    s = x + update
    n = (s - mean) / sqrt(var + eps) * gamma + beta
    y = s + b2 + silu(n W1' + b1) W2'

torch reads and writes a dozen more arrays for it in a gradient step: each sum of a residual, the norm and the sum of
every bias's gradient are operations of their own. Here residual, norm and b2 are one launch forward; backward, the norm
with the sums of gamma, beta and b2, and SiLU with that of b1, are two launches each, by Triton (`feed_forward_gpu.py`).
Without Triton, torch's operations run inside. The last product adds to y in place. First derivatives only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm, silu

from rlmin.kernels.operators import define, load_gpu
from rlmin.kernels.operators import usable as usable


def feed_forward(x: Tensor, update: Tensor, norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear) -> Tensor:
    """s + second(silu(first(norm(s)))) with s = x + update; x and update [..., D]."""
    weights = (norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias)
    if torch.is_grad_enabled():
        y: Tensor = _FeedForward.apply(x, update, *weights, norm.eps)  # type: ignore[no-untyped-call]
        return y
    return _run(x, update, *weights, norm.eps)[0]


def silu_mlp(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """second(silu(first(x))), x [..., D]."""
    if torch.is_grad_enabled():
        y: Tensor = _SiluMLP.apply(x, first.weight, first.bias, second.weight, second.bias)  # type: ignore[no-untyped-call]
        return y
    return nn.functional.linear(silu(first(x)), second.weight, second.bias)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, update, gamma, beta, w1, b1, w2, b2, ctx.eps = inputs
        y, n, a, hidden = _run(x, update, gamma, beta, w1, b1, w2, b2, ctx.eps)
        ctx.save_for_backward(x, update, gamma, w1, w2, n, a, hidden)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, update, gamma, w1, w2, n, a, hidden = ctx.saved_tensors
        dy = dy.contiguous()
        dn, dw1, db1, dw2 = _backward_mlp(dy, n, a, hidden, w1, w2)
        ds, sums = _add_norm_backward(dn, dy, x, update, gamma, ctx.eps)
        dgamma, dbeta, db2 = sums
        return ds, ds, dgamma, dbeta, dw1, db1, dw2, db2, None


class _SiluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        x, w1, b1, w2, b2 = inputs
        flat = x.reshape(-1, x.shape[-1])
        a = torch.addmm(b1, flat, w1.t())
        hidden = silu(a)
        ctx.save_for_backward(flat, a, hidden, w1, w2)
        return torch.addmm(b2, hidden, w2.t()).view(*x.shape[:-1], len(w2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, a, hidden, w1, w2 = ctx.saved_tensors
        flat, need = dy.reshape(-1, dy.shape[-1]), ctx.needs_input_grad[0]
        dx, dw1, db1, dw2 = _backward_mlp(flat, x, a, hidden, w1, w2, need_dx=need)
        return None if dx is None else dx.view(*dy.shape[:-1], -1), dw1, db1, dw2, flat.sum(0)


def _run(x: Tensor, update: Tensor, *weights: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y as x; and n [N, D], the hidden layer [N, H] before SiLU and after it, with N rows."""
    gamma, beta, w1, b1, w2, b2, eps = weights
    y, n = _add_norm_forward(x, update, gamma, beta, b2, eps)
    n = n.view(-1, x.shape[-1])
    a = torch.addmm(b1, n, w1.t())
    hidden = silu(a)
    y.view(n.shape).addmm_(hidden, w2.t())
    return y, n, a, hidden


def _backward_mlp(
    dy: Tensor, x: Tensor, a: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor, *, need_dx: bool = True
) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Gradients of x (None if not needed; in the shape of dy), w1, b1 and w2, given that of the output."""
    flat = dy.reshape(-1, dy.shape[-1])
    dw2 = flat.t().mm(hidden)
    da, db1 = _silu_backward(flat.mm(w2), a)
    dx = da.mm(w1) if need_dx else None
    return dx if dx is None or dx.shape[-1] != dy.shape[-1] else dx.view(dy.shape), da.t().mm(x), db1, dw2


def _run_add_norm_forward(
    x: Tensor, update: Tensor, gamma: Tensor, beta: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    gpu = load_gpu("feed_forward_gpu", x.device)
    if gpu is not None:
        y, n = gpu.add_norm_forward(x, update, gamma, beta, bias, eps)
        return y, n
    s = x + update
    return (s + bias).contiguous(), layer_norm(s, gamma.shape, gamma, beta, eps).contiguous()


def _run_add_norm_backward(
    dn: Tensor, dy: Tensor, x: Tensor, update: Tensor, gamma: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    gpu = load_gpu("feed_forward_gpu", x.device)
    if gpu is not None:
        ds, sums = gpu.add_norm_backward(dn, dy, x, update, gamma, eps)
        return ds, sums
    s = x + update
    _, mean, rstd = torch.native_layer_norm(s, gamma.shape, gamma, None, eps)
    of_norm = torch.ops.aten.native_layer_norm_backward(dn, s, gamma.shape, mean, rstd, gamma, gamma, [True] * 3)
    ds, dgamma, dbeta = of_norm
    return (ds + dy).contiguous(), torch.stack([dgamma, dbeta, dy.reshape(-1, len(gamma)).sum(0)])


def _run_silu_backward(dhidden: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    gpu = load_gpu("feed_forward_gpu", a.device)
    if gpu is not None:
        da, db = gpu.silu_backward(dhidden, a)
        return da, db
    da = torch.ops.aten.silu_backward(dhidden, a)
    return da, da.sum(0)


def _fake_add_norm_forward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _fake_add_norm_backward(dn: Tensor, dy: Tensor, x: Tensor, update: Tensor, gamma: Tensor, _: float) -> Any:
    return x.new_empty(x.shape), gamma.new_empty(3, len(gamma))


def _fake_silu_backward(dhidden: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), a.new_empty(a.shape[1])


_add_norm_forward = define(
    "add_norm_forward(Tensor x, Tensor update, Tensor gamma, Tensor beta, Tensor bias, float eps) -> (Tensor, Tensor)",
    _run_add_norm_forward,
    _fake_add_norm_forward,
)
"""s + bias and norm(s)."""
_add_norm_backward = define(
    "add_norm_backward(Tensor dn, Tensor dy, Tensor x, Tensor update, Tensor gamma, float eps) -> (Tensor, Tensor)",
    _run_add_norm_backward,
    _fake_add_norm_backward,
)
"""The gradient of s; and those of gamma, beta and bias as one tensor [3, D]."""
_silu_backward = define(
    "silu_backward(Tensor dhidden, Tensor a) -> (Tensor, Tensor)", _run_silu_backward, _fake_silu_backward
)
"""Gradients of a [N, H] and of its bias, given that of silu(a)."""
