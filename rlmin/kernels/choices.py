"""Log-probability and entropy of choices as one operation, away from the CPU with numba.

    p = softmax(logits)                                   of every choice k
    log_prob = sum over k of log p[k, action[k]]
    entropy  = -sum over k, i of p[k, i] log p[k, i]

torch needs some twenty small launches for them in a gradient step. Only logits and action are kept for the backward
pass. First derivatives only.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlmin.kernels.operators import define, load_gpu
from rlmin.kernels.operators import usable as usable


def choice_terms(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of an action and the entropy.

    Args:
        logits: [..., K, n] float.
        action: [..., K] int64 below n.

    Returns:
        log_prob and entropy, [...] each; gradients flow to `logits`.
    """
    if torch.is_grad_enabled():
        log_prob, entropy = _Choices.apply(logits, action)  # type: ignore[no-untyped-call]
        return log_prob, entropy
    log_prob, entropy = _forward_operator(logits, action)
    return log_prob, entropy


class _Choices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, action)
        log_prob, entropy = _forward_operator(logits, action)
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlog_prob: Tensor, dentropy: Tensor) -> tuple[Tensor, None]:
        return _backward_operator(dlog_prob, dentropy, *ctx.saved_tensors), None


def _forward(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    gpu = load_gpu("choices_gpu", logits.device)
    if gpu is not None:
        log_prob, entropy = gpu.forward(logits, action)
        return log_prob, entropy
    log_p = logits.log_softmax(-1)
    return log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1).sum(-1), -(log_p.exp() * log_p).sum((-2, -1))


def _backward(dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, action: Tensor) -> Tensor:
    gpu = load_gpu("choices_gpu", logits.device)
    if gpu is not None:
        dlogits: Tensor = gpu.backward(dlog_prob, dentropy, logits, action)
        return dlogits
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    spread = -(p * log_p).sum(-1, keepdim=True)
    taken = torch.zeros_like(p).scatter_(-1, action.unsqueeze(-1), 1)
    return (dlog_prob[..., None, None] * (taken - p) - dentropy[..., None, None] * p * (log_p + spread)).contiguous()


def _fake_forward(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[:-2]), logits.new_empty(logits.shape[:-2])


def _fake_backward(dlog_prob: Tensor, dentropy: Tensor, logits: Tensor, action: Tensor) -> Tensor:
    return logits.new_empty(logits.shape)


_forward_operator = define("choices_forward(Tensor logits, Tensor action) -> (Tensor, Tensor)", _forward, _fake_forward)
_backward_operator = define(
    "choices_backward(Tensor dlog_prob, Tensor dentropy, Tensor logits, Tensor action) -> Tensor",
    _backward,
    _fake_backward,
)
