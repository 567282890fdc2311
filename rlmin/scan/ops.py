"""The kernels as torch operators, with gradients: the only place that knows about autograd and torch.compile.

Each scan is a pair of opaque operators, forward and backward, in the library `rlmin`; `torch.compile` looks into
neither and needs only their fakes. The `autograd.Function` sits outside the operators, which halves the call overhead
compared with autograd inside. For a differentiable backward (`create_graph=True`) it composes the gradient from
differentiable operations instead of calling the fused kernel.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlmin.scan.activation import Option as Option
from rlmin.scan.dispatch import kernel_of
from rlmin.scan.gradients import Saved, backward


class Operation(NamedTuple):
    """The arguments of a scan beside `state` and `start`."""

    inputs: tuple[str, ...]  # [T, B, D] each; h has the shape and dtype of the last
    option: str  # type and name
    kept: int  # number of inputs that the backward pass reads: the first ones

    @property
    def schemas(self) -> dict[str, str]:
        """The types of the two operators, as torch writes them."""
        inputs, kept = (", ".join(f"Tensor {x}" for x in names) for names in (self.inputs, self.inputs[: self.kept]))
        grads = ", ".join(["Tensor"] * (len(self.inputs) + 1))
        return {
            "forward": f"({inputs}, Tensor state, Tensor? start, {self.option}) -> (Tensor, Tensor)",
            "backward": f"(Tensor? grad_h, Tensor? grad_last, {kept}, Tensor state, Tensor? start, Tensor h, "
            f"{self.option}) -> ({grads})",
        }


OPERATIONS = {
    "linear": Operation(("decay", "value"), "bool reverse", kept=1),
    "gru": Operation(("gate", "candidate"), "str activation", kept=2),
    "lstm": Operation(("forget", "input", "candidate"), "str activation", kept=3),
}


def scan(name: str, option: Option, start: Tensor | None, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Run scan `name`, one of `OPERATIONS`, on [T, B, D] inputs, recording a gradient only if one is wanted."""
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
        kept = inputs[: OPERATIONS[name].kept]
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


def _run_forward(scan: str, *arguments: Any) -> tuple[Tensor, ...]:
    """The forward operator as torch calls it: the kernel is chosen at run time."""
    *inputs, state, start, option = arguments
    outputs = kernel_of(scan, state.device).forward(scan, tuple(inputs), state, start, option)
    return tuple(y.contiguous() for y in outputs)  # as the fakes promise


def _run_backward(scan: str, grad_h: Tensor | None, grad_last: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, state, start, h, option = arguments
    kernel = kernel_of(scan, state.device)
    grads = kernel.backward(scan, grad_h, grad_last, Saved(tuple(inputs), state, start, h), option)
    return tuple(g.contiguous() for g in grads)


def _fake_forward(scan: str, *arguments: Any) -> tuple[Tensor, ...]:
    value, state = arguments[-4], arguments[-3]
    return value.new_empty(value.shape), state.new_empty(state.shape)


def _fake_backward(scan: str, grad_h: Tensor | None, grad_last: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, state, _start, h, _option = arguments
    not_kept = [h] * (len(OPERATIONS[scan].inputs) - len(inputs))
    return tuple(x.new_empty(x.shape) for x in (*inputs, *not_kept, state))


_LIBRARY: Any = torch.library.Library("rlmin", "DEF")  # type: ignore[no-untyped-call]
_RUN = {"forward": (_run_forward, _fake_forward), "backward": (_run_backward, _fake_backward)}
for _scan, _operation in OPERATIONS.items():
    for _way, _schema in _operation.schemas.items():
        _run, _fake = (partial(function, _scan) for function in _RUN[_way])
        _LIBRARY.define(f"{_scan}_{_way}{_schema}")
        _LIBRARY.impl(f"{_scan}_{_way}", _run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"rlmin::{_scan}_{_way}", _fake, lib=_LIBRARY)

_FORWARD = {name: getattr(torch.ops.rlmin, f"{name}_forward").default for name in OPERATIONS}
_BACKWARD = {name: getattr(torch.ops.rlmin, f"{name}_backward").default for name in OPERATIONS}
