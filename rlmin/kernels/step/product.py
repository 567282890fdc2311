"""The matrix product of the BLAS that torch is linked to, as a piece of a compiled loop.

A loop with its own products needs no call from Python between them. The process looks up the routine's address and
passes it in the table of the loop, so the loop can be cached on disk.
"""

import ctypes
import functools
from typing import Any

import numba
import numba.extending
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

_SYMBOLS = {torch.float32: "sgemm_", torch.float64: "dgemm_"}
_numba: Any = numba
_place: Any = cgutils.alloca_once_value  # once a call of the loop, not once a product


@functools.cache
def address(dtype: torch.dtype) -> int | None:
    """Address of the Fortran routine for `dtype`; None if torch's libraries do not export one."""
    try:
        routine = getattr(ctypes.CDLL(torch._C.__file__), _SYMBOLS[dtype])
    except (OSError, AttributeError, KeyError):
        return None
    return ctypes.cast(routine, ctypes.c_void_p).value


def _intrinsic(function: Any) -> Any:
    return _numba.extending.intrinsic(function)


@_intrinsic
def product(
    typing: Any, routine: Any, x: Any, weight: Any, y: Any, rows: Any, inputs: Any, outputs: Any, kept: Any
) -> Any:
    """y = kept * y + x @ weight.T, for x [rows, inputs], weight [outputs, inputs] and y [rows, outputs].

    Fortran is column-major: it sees the transposes of x and y, and weight needs the "T". Its integers are 32 or 64 bits
    wide; on a little-endian machine the address of a 64-bit one serves both. `kept` is 0 or 1 in the dtype of the
    arrays.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call, x, weight, y, rows, inputs, outputs, kept = arguments
        byte = ir.IntType(8)
        transposed, plain = ir.Constant(byte, ord("T")), ir.Constant(byte, ord("N"))
        one = context.get_constant(signature.args[-1], 1)
        places = {id(v): _place(builder, v) for v in (transposed, plain, rows, inputs, outputs, one)}
        places[id(kept)] = _place(builder, kept)
        by_address = [transposed, plain, outputs, rows, inputs, one, weight, inputs, x, inputs, kept, y, outputs]
        passed = [
            builder.bitcast(v if v is x or v is weight or v is y else places[id(v)], byte.as_pointer())
            for v in by_address
        ]
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer()] * len(passed))
        builder.call(builder.inttoptr(call, kind.as_pointer()), passed)
        return context.get_dummy_value()

    return _numba.types.none(routine, x, weight, y, rows, inputs, outputs, kept), build
