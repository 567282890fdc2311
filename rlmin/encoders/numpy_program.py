"""A program for numpy: buffers, views of them, weights, and the calls that rlmin.export.numpy_policy makes one by one.

An export builds it, and a cell adds its own step (`NumpyForm`). Arrays have names, each used once. The input of a
product ends in a 1, and the last row of its weight is the bias. sigmoid(x) is 1 / (1 + exp(-x)), so the argument of a
sigmoid is computed with the opposite sign.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from torch import Tensor

INSTEAD = "`rlmin export --onnx` can do it"
"""Hint in the error for a policy that numpy calls cannot express."""
Linear: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Weight [out, in] and bias [out], float64."""


After: TypeAlias = "Callable[[Linear], Linear]"
"""Merges an affine map that comes before a product into that product."""


class Program:
    """Buffers, views, calls and weights, added step by step; names are free, but each is used once."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype.name
        self.weights: dict[str, np.ndarray] = {}
        self.buffers: list[list[Any]] = []
        self.views: list[list[Any]] = []
        self.calls: list[list[Any]] = []
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.kept = 0  # columns of the memory
        for name, value in (("zero", 0), ("half", 0.5), ("one", 1), ("minus", -1)):
            self.buffer(name, fill=value, rows=False)

    def describe(self) -> dict[str, Any]:
        """Entries of the description: inputs, outputs, program."""
        self.buffer("memory", self.kept)
        sizes = {name: {"shape": shape[1:], "dtype": dtype} for name, shape, dtype, _ in self.buffers}
        return {
            "inputs": {name: sizes[buffer] for name, buffer in self.inputs.items()},
            "outputs": {name: sizes[buffer] for name, buffer in self.outputs.items()},
            "program": {name: getattr(self, name) for name in ("buffers", "views", "calls", "inputs", "outputs")},
        }

    def buffer(self, name: str, *size: int, dtype: str | None = None, fill: float = 0, rows: bool = True) -> str:
        """An array [B, *size], or [*size] without `rows`."""
        self.buffers.append([name, ["B", *size] if rows else list(size), dtype or self.dtype, fill])
        return name

    def view(self, name: str, source: str, how: str, *args: Any) -> str:
        self.views.append([name, source, how, *args])
        return name

    def call(self, function: str, *args: Any) -> None:
        self.calls.append([function, *args])

    def weight(self, name: str, x: Any) -> str:
        """Keep an array; numbers in the precision of the policy."""
        x = np.asarray(x)
        self.weights[name] = x.astype(self.dtype) if x.dtype.kind == "f" else x
        return name

    def product(self, name: str, read: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """read @ weight + bias, [B, out]; weight [out, in], bias [out]; `read` is [B, in + 1] and ends in a 1."""
        self.weight(f"{name}.weight", np.concatenate([weight.T, bias[None]]))
        self.call("matmul", read, f"{name}.weight", self.buffer(name, len(bias)))
        return name

    def ending_in_one(self, name: str, size: int) -> tuple[str, str]:
        """A buffer to multiply, and the view of it without the 1."""
        return self.buffer(name, size + 1, fill=1), self.view(f"{name}.x", name, "columns", 0, size)

    def remember(self, name: str, size: int) -> str:
        """A view of `size` more columns of the memory."""
        self.view(name, "memory", "columns", self.kept, self.kept + size)
        self.kept += size
        return name

    def sigmoid(self, negated: str) -> None:
        """Compute in place 1 + exp(-x), the divisor of sigmoid(x), given -x."""
        self.call("exp", negated, negated)
        self.call("add", negated, "one", negated)

    def silu(self, negated: str, out: str, size: int) -> None:
        """x * sigmoid(x) = -x / (-1 - exp(-x)), given -x."""
        e = self.buffer(f"{negated}.e", size)
        self.call("exp", negated, e)
        self.call("subtract", "minus", e, e)
        self.call("divide", negated, e, out)


@dataclass(frozen=True)
class NumpyForm:
    """The numpy form of one step of a cell.

    Attributes:
        write: (program, name, module, read, after) -> the array [B, H] of its output. `read` is [x 1]; the module
            merges `after` into its first product and reads it. The memory is called `{name}.h`, ...
        reads_memory: whether its products read the memory too: then `read` is [x h 1], and `write` copies h there.
    """

    write: Callable[[Program, str, Any, str, After], str]
    reads_memory: bool = False


def array(x: Any, dtype: Any = np.float64) -> np.ndarray:
    return cast(Tensor, x).detach().cpu().numpy().astype(dtype)


def linear(layer: Any) -> Linear:
    """Weight and bias of a layer."""
    return array(layer.weight), array(layer.bias)


def scale_before(scale: np.ndarray, shift: np.ndarray, layer: Linear) -> Linear:
    """The product of x that equals the given product of scale * x + shift."""
    weight, bias = layer
    return weight * scale, bias + weight @ shift


def centre(layer: Linear) -> Linear:
    """The same product with the mean of its result removed."""
    return layer[0] - layer[0].mean(0), layer[1] - layer[1].mean()


def negate(layer: Linear, rows: int) -> Linear:
    """The product with the signs of its first results reversed, for `Program.sigmoid`."""
    sign = np.where(np.arange(len(layer[1])) < rows, -1, 1)
    return layer[0] * sign[:, None], layer[1] * sign


def require_class(module: Any, kind: Any) -> Any:
    """`module`, which must be of exactly this class."""
    if type(module) is not kind:
        raise ValueError(f"export to numpy: expected {kind.__name__}, found {type(module).__name__}; {INSTEAD}")
    return module
