"""The matrix products of a piece of code alone: its cost if everything else were free.

`Products` watches a first run and records every product (forward and backward, inside autograd functions too) with the
sizes, strides and types of its operands. A call repeats these products on stand-in tensors, and nothing else. Products
of equal sizes share stand-ins, which are therefore warmer in the caches than the real operands: if anything, the
products come out too cheap and the rest too expensive.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAMES = {"mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "mv", "addmv", "linear", "matmul"}
"""Operators that are matrix products, below autograd."""


class Products:
    """The matrix products of one call of `function`, repeatable at will.

    Args:
        function: called once, at construction.

    Attributes:
        count: products a call.
        flops: multiplications and additions a call.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        with _Watch() as watch:
            function()
        self._stand_ins: dict[Any, Tensor] = {}
        self._calls = [
            (
                operator,
                [self._stand_in(x, i) for i, x in enumerate(arguments)],
                {k: self._stand_in(x, k) for k, x in named.items()},
            )
            for operator, arguments, named in watch.calls
        ]
        self.count = len(self._calls)
        self.flops = sum(count_flops(arguments) for _, arguments, _ in self._calls)

    @torch.no_grad()
    def __call__(self) -> None:
        for operator, arguments, named in self._calls:
            operator(*arguments, **named)

    def _stand_in(self, x: Any, place: int | str) -> Any:
        """A tensor laid out like `x`, one for each layout and place among the arguments; anything else as it is."""
        if not isinstance(x, _Layout):
            return x
        key = (x, place)
        if key not in self._stand_ins:
            self._stand_ins[key] = x.make()
        return self._stand_ins[key]


class _Layout(NamedTuple):
    """How a tensor lies in memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Any) -> Any:
        return cls(tuple(x.shape), x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else x

    def make(self) -> Tensor:
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        storage = torch.randn(last + 1, device=self.device).to(self.dtype)
        return storage.as_strided(self.size, self.stride)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Callable[..., object], list[Any], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func.overloadpacket.__name__.rstrip("_") in NAMES:  # in place, too
            self.calls.append((func, [_Layout.of(x) for x in args], {k: _Layout.of(x) for k, x in named.items()}))
        return func(*args, **named)


def count_flops(arguments: list[Any]) -> int:
    """2 m k n of a product of [.., m, k] and [.., k, n] (or [.., k]), the last two tensors among the arguments."""
    *_, left, right = [x for x in arguments if isinstance(x, Tensor)]
    return 2 * left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
