"""The kernels as torch operators, with gradients: the only place that knows about autograd and torch.compile.

Each scan is a pair of opaque operators, forward and backward, in the library `rlmin`; `torch.compile` looks into
neither and needs only their fakes. The `autograd.Function` sits outside the operators, which halves the call overhead
compared with autograd inside. For a differentiable backward (`create_graph=True`) it composes the gradient from
differentiable operations instead of calling the fused kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlmin.scan.activation import Option as Option
from rlmin.scan.dispatch import kernel_for
from rlmin.scan.gradients import Saved, backward

_SCHEMAS = {
    "linear_forward": "(Tensor decay, Tensor value, Tensor state, Tensor? start, bool reverse) -> (Tensor, Tensor)",
    "gru_forward": "(Tensor gate, Tensor candidate, Tensor state, Tensor? start, str activation) -> (Tensor, Tensor)",
    "lstm_forward": "(Tensor forget, Tensor input, Tensor candidate, Tensor state, Tensor? start, str activation)"
    " -> (Tensor, Tensor)",
    "linear_backward": "(Tensor? grad_h, Tensor? grad_last, Tensor decay, Tensor state, Tensor? start, Tensor h,"
    " bool reverse) -> (Tensor, Tensor, Tensor)",
    "gru_backward": "(Tensor? grad_h, Tensor? grad_last, Tensor gate, Tensor candidate, Tensor state, Tensor? start,"
    " Tensor h, str activation) -> (Tensor, Tensor, Tensor)",
    "lstm_backward": "(Tensor? grad_h, Tensor? grad_last, Tensor forget, Tensor input, Tensor candidate, Tensor state,"
    " Tensor? start, Tensor h, str activation) -> (Tensor, Tensor, Tensor, Tensor)",
}


def scan(name: str, option: Option, start: Tensor | None, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Run scan `name` (linear, gru, lstm) on [T, B, D] inputs, recording a gradient only if one is wanted."""
    if torch.is_grad_enabled() and (state.requires_grad or any(x.requires_grad for x in inputs)):
        h, last = _Scan.apply(name, option, start, state, *inputs)  # type: ignore[no-untyped-call]
        return h, last
    h, last = _FORWARD[name](*inputs, state, start, option)
    return h, last


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, name: str, option: Option, start: Tensor | None, state: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        h, last = _FORWARD[name](*inputs, state, start, option)
        kept = inputs[:1] if name == "linear" else inputs  # the gradient of a linear scan needs no value
        ctx.name, ctx.option = name, option
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(start, state, h, *kept)
        return h, last

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        start, state, h, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            saved = Saved(tuple(inputs), state, start, h)
            grads = backward(_differentiable_linear_scan, ctx.name, grad_h, grad_last, saved, ctx.option)
        else:
            grads = _BACKWARD[ctx.name](grad_h, grad_last, *inputs, state, start, h, ctx.option)
        return None, None, None, grads[-1], *grads[:-1]


def _differentiable_linear_scan(
    decay: Tensor, value: Tensor, state: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    return scan("linear", reverse, start, state, decay, value)


def _implementation(name: str) -> Callable[..., tuple[Tensor, ...]]:
    """The operator as the dispatcher calls it: pick the kernel at run time."""
    scan, _, direction = name.partition("_")

    def run_forward(*arguments: Any) -> tuple[Tensor, ...]:
        *inputs, state, start, option = arguments
        outputs = kernel_for(state.device).forward(scan, tuple(inputs), state, start, option)
        return tuple(y.contiguous() for y in outputs)  # as the fakes promise

    def run_backward(grad_h: Tensor | None, grad_last: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
        *inputs, state, start, h, option = arguments
        kernel = kernel_for(state.device)
        grads = kernel.backward(scan, grad_h, grad_last, Saved(tuple(inputs), state, start, h), option)
        return tuple(g.contiguous() for g in grads)

    return run_forward if direction == "forward" else run_backward


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    value, state = arguments[-4], arguments[-3]
    return value.new_empty(value.shape), state.new_empty(state.shape)


def _fake_linear_backward(*arguments: Any) -> tuple[Tensor, ...]:
    _, _, decay, state, _, h, _ = arguments
    return decay.new_empty(decay.shape), h.new_empty(h.shape), state.new_empty(state.shape)


def _fake_gated_backward(grad_h: Tensor | None, grad_last: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, state, _start, _h, _activation = arguments
    return tuple(x.new_empty(x.shape) for x in (*inputs, state))


_LIBRARY: Any = torch.library.Library("rlmin", "DEF")  # type: ignore[no-untyped-call]
for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    _LIBRARY.impl(_name, _implementation(_name), "CompositeExplicitAutograd")
_FAKES: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "linear_forward": _fake_forward,
    "gru_forward": _fake_forward,
    "lstm_forward": _fake_forward,
    "linear_backward": _fake_linear_backward,
    "gru_backward": _fake_gated_backward,
    "lstm_backward": _fake_gated_backward,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"rlmin::{_name}", _fake, lib=_LIBRARY)

_FORWARD = {name: getattr(torch.ops.rlmin, f"{name}_forward").default for name in ("linear", "gru", "lstm")}
_BACKWARD = {name: getattr(torch.ops.rlmin, f"{name}_backward").default for name in ("linear", "gru", "lstm")}
