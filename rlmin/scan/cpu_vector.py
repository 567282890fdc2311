"""Vectors of 16 float32 or 8 float64 as values of a numba loop.

LLVM vectorises a loop for long rows. The rows of a matrix memory have 16 to 64 elements, which such code leaves to its
slow end. So loops over them say themselves what a vector holds. On a CPU with narrower registers LLVM splits it.
"""

from collections.abc import Callable
from typing import Any

import numba
import numba.extending
import torch
from llvmlite import ir  # type: ignore[import-untyped]

_types: Any = numba.types
_extending: Any = numba.extending
_models: Any = _extending.models
_FUSED = ("contract", "nsz")
LANES = {torch.float32: 16, torch.float64: 8}
"""Elements of a vector."""
_WIDTH = {_types.float32: 16, _types.float64: 8}


class _Vector(_types.Type):  # type: ignore[misc]
    def __init__(self, dtype: Any) -> None:
        self.dtype, self.lanes = dtype, _WIDTH[dtype]
        super().__init__(name=f"rlmin vector of {dtype}")


@_extending.register_model(_Vector)
class _Model(_models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: _Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def _intrinsic(function: Callable[..., Any]) -> Any:
    return _extending.intrinsic(function)


@_intrinsic
def vector(typing: Any, pointer: Any, index: Any) -> Any:
    """The vector at pointer[index]."""
    kind = _Vector(pointer.dtype)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, kind, *arguments), align=pointer.dtype.bitwidth // 8)

    return kind(pointer, index), build


@_intrinsic
def fetch(typing: Any, pointer: Any) -> Any:
    """Ask for the cache line at a pointer, which is read or written soon."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        name = "llvm.prefetch.p0"
        call = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(call, [builder.bitcast(arguments[0], byte), *(ir.Constant(number, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return _types.none(pointer), build


@_intrinsic
def put(typing: Any, pointer: Any, index: Any, x: Any) -> Any:
    """pointer[index:] = x"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, x, *arguments[:2]), align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return _types.none(pointer, index, x), build


@_intrinsic
def spread(typing: Any, x: Any) -> Any:
    """A vector of x in every place."""
    kind = _Vector(x)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = context.get_value_type(kind)
        first = builder.insert_element(ir.Constant(wide, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), None)
        return builder.shuffle_vector(first, ir.Constant(wide, ir.Undefined), places)

    return kind(x), build


@_intrinsic
def times(typing: Any, x: Any, y: Any) -> Any:
    """x * y"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments, flags=_FUSED)

    return x(x, y), build


@_intrinsic
def plus(typing: Any, z: Any, x: Any, y: Any) -> Any:
    """z + x * y"""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        z, x, y = arguments
        return builder.fadd(z, builder.fmul(x, y, flags=_FUSED), flags=_FUSED)

    return z(z, x, y), build


@_intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum of the elements of x, halves first."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, width, place = arguments[0], x.lanes, ir.IntType(32)
        nothing = ir.Constant(found.type, ir.Undefined)
        while width > 1:
            width //= 2
            moved = [*range(width, 2 * width), *[0] * (x.lanes - width)]
            halves = ir.Constant(ir.VectorType(place, x.lanes), moved)
            found = builder.fadd(found, builder.shuffle_vector(found, nothing, halves), flags=_FUSED)
        return builder.extract_element(found, ir.Constant(place, 0))

    return x.dtype(x), build


def _place(context: Any, builder: Any, kind: _Vector, pointer: Any, index: Any) -> Any:
    at = builder.gep(pointer, [index], inbounds=True)
    return builder.bitcast(at, context.get_value_type(kind).as_pointer())
