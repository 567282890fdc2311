"""The memory of a policy as a program for numpy: what the blocks of a Stack compute in one step."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from torch import Tensor, nn

from rlmin.encoders import GRU, LSTM, MLP, Encoder, MinGRU, MinLSTM
from rlmin.encoders.stack import Block
from rlmin.interop.numpy_program import INSTEAD, Linear, Program, after, array, known, linear, negated, of_mean_zero


def add_block(program: Program, name: str, block: Block, x: str, centred: bool) -> bool:
    """x + mixer(conv(norm(x))), then x + mlp(norm(x)), in place; whether the mean of x is 0 afterwards."""
    width, mixer = block.output_size, block.mixer
    if type(mixer) not in _MIXERS:
        raise ValueError(f"export to numpy: encoder {type(mixer).__name__} is not supported; {INSTEAD}")
    again = width if isinstance(mixer, GRU | LSTM) else 0  # these read their memory too
    read, _ = program.ending_in_one(f"{name}.read", width + again)
    y = program.view(f"{name}.y", read, "columns", 0, width)
    if block.conv is None:
        scale, shift = add_norm(program, f"{name}.norm", block.norm, x, y, width, centred)
    else:
        scale, shift = np.ones(width), array(block.conv.bias)
        _convolve(program, name, block, x, y, centred)
    if not isinstance(mixer, MLP):
        program.remember(f"{name}.h", width)
    if again:
        program.call("copyto", program.view(f"{name}.again", read, "columns", width, 2 * width), f"{name}.h")
    update = _MIXERS[type(mixer)](program, name, mixer, read, partial(after, scale, shift))
    program.call("add", x, update, x)
    if block.mlp is None or block.mlp_norm is None:
        return False
    read, y = program.ending_in_one(f"{name}.mlp.read", width)
    scale, shift = add_norm(program, f"{name}.mlp.norm", block.mlp_norm, x, y, width, False)
    first, second = linear(block.mlp[0]), linear(block.mlp[2])
    hidden = program.product(f"{name}.mlp.first", read, *after(scale, shift, (-first[0], -first[1])))
    read, y = program.ending_in_one(f"{name}.mlp.hidden", len(first[1]))
    program.silu(hidden, y, len(first[1]))
    program.call("add", x, program.product(f"{name}.mlp.second", read, *of_mean_zero(second)), x)
    return True


def add_norm(
    program: Program, name: str, norm: nn.Module, x: str, out: str, width: int, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """out = (x - mean) / |x - mean|, x too without its mean; scale and shift that make it LayerNorm's."""
    layer = known(norm, nn.LayerNorm)
    if not centred:
        mean = program.buffer(f"{name}.mean", 1)
        program.call("matmul", x, "mean", mean)
        program.call("subtract", x, mean, x)
    square = program.buffer(f"{name}.square", 1, 1)
    lying, standing = (
        program.view(f"{name}.{how}", x, "reshape", ["B", *size])
        for how, size in (("lying", (1, width)), ("standing", (width, 1)))
    )
    program.call("matmul", lying, standing, square)
    program.call("add", square, program.buffer(f"{name}.eps", fill=layer.eps * width, rows=False), square)
    program.call("sqrt", square, square)
    program.call("divide", x, program.view(f"{name}.length", square, "reshape", ["B", 1]), out)
    return array(layer.weight) * width**0.5, array(layer.bias)


def _convolve(program: Program, name: str, block: Block, x: str, y: str, centred: bool) -> None:
    """The sum over the inputs in view, newest first; its bias is part of the product that follows."""
    weight, H = array(cast(Tensor, cast(Any, block.conv).weight)), block.output_size
    width = len(weight)
    seen = program.remember(f"{name}.conv", width * H)
    seen = program.view(f"{name}.seen", seen, "reshape", ["B", width, H])
    later, sooner = (program.view(f"{name}.{i}", seen, "columns", i, width - 1 + i) for i in (1, 0))
    program.call("copyto", later, sooner)
    newest = program.view(f"{name}.newest", seen, "column", 0)
    scale, shift = add_norm(program, f"{name}.norm", block.norm, x, newest, H, centred)
    program.call("multiply", newest, program.weight(f"{name}.norm.scale", scale), newest)
    program.call("add", newest, program.weight(f"{name}.norm.shift", shift), newest)
    weighted = program.buffer(f"{name}.weighted", width, H)
    program.call("multiply", seen, program.weight(f"{name}.conv.weight", weight), weighted)
    program.call("sum", weighted, 1, y)


After: TypeAlias = Callable[[Linear], Linear]
"""Makes what was applied before a product part of it."""


def _min_gru(program: Program, name: str, mixer: MinGRU, read: str, after: After) -> str:
    H = mixer.output_size
    p = program.product(f"{name}.mixer", read, *negated(after(linear(mixer.projection)), H))
    gate, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(2))
    program.sigmoid(gate)
    return _approach(program, name, mixer, candidate, gate)


def _min_lstm(program: Program, name: str, mixer: MinLSTM, read: str, after: After) -> str:
    """i / (f + i) = sigmoid(log i - log f), and -log sigmoid(x) = log(1 + exp(-x))."""
    H = mixer.output_size
    p = program.product(f"{name}.mixer", read, *negated(after(linear(mixer.projection)), 2 * H))
    gates = program.view(f"{p}.gates", p, "columns", 0, 2 * H)
    forget, input, candidate = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(3))
    program.call("logaddexp", "zero", gates, gates)
    program.call("subtract", input, forget, input)
    program.sigmoid(input)
    return _approach(program, name, mixer, candidate, input)


def _approach(program: Program, name: str, mixer: MinGRU | MinLSTM, candidate: str, gate: str) -> str:
    """h += (activation(candidate) - h) / gate, where 1 / gate is the share of the new."""
    h, H = f"{name}.h", mixer.output_size
    if mixer.candidate == "tanh":
        program.call("tanh", candidate, candidate)
    if mixer.candidate == "g":  # x + 0.5 where x >= 0, else sigmoid(x)
        below = program.buffer(f"{name}.below", H, dtype="bool", fill=False)
        share = program.buffer(f"{name}.share", H)
        program.call("less", candidate, "zero", below)
        program.call("subtract", "zero", candidate, share)
        program.sigmoid(share)
        program.call("divide", "one", share, share)
        program.call("add", candidate, "half", candidate)
        program.call("copy_where", candidate, share, below)
    program.call("subtract", candidate, h, candidate)
    program.call("divide", candidate, gate, candidate)
    program.call("add", h, candidate, h)
    return h


def _gru(program: Program, name: str, mixer: GRU, read: str, after: After) -> str:
    """Rows [reset; update; new of x; new of h], of [x h]."""
    h, H = f"{name}.h", mixer.output_size
    (weight, bias), (again, shift) = after(linear(mixer.projection)), linear(mixer.recurrence)
    nothing = np.zeros((H, H))
    of_x, of_h = np.concatenate([weight, nothing]), np.concatenate([again[: 2 * H], nothing, again[2 * H :]])
    both = np.concatenate([bias[: 2 * H] + shift[: 2 * H], bias[2 * H :], shift[2 * H :]])
    p = program.product(f"{name}.mixer", read, *negated((np.concatenate([of_x, of_h], 1), both), 2 * H))
    program.sigmoid(program.view(f"{p}.gates", p, "columns", 0, 2 * H))
    reset, update, new, old = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(4))
    program.call("divide", old, reset, old)
    program.call("add", new, old, new)
    program.call("tanh", new, new)
    program.call("subtract", h, new, h)
    program.call("divide", h, update, h)
    program.call("add", h, new, h)
    return h


def _lstm(program: Program, name: str, mixer: LSTM, read: str, after: After) -> str:
    """Rows [input; forget; output; cell], of [x h]."""
    h, H = f"{name}.h", mixer.output_size
    c = program.remember(f"{name}.c", H)
    (weight, bias), (again, shift) = after(linear(mixer.projection)), linear(mixer.recurrence)
    order = np.concatenate([np.arange(2 * H), np.arange(3 * H, 4 * H), np.arange(2 * H, 3 * H)])
    joined = np.concatenate([weight, again], 1)[order], (bias + shift)[order]
    p = program.product(f"{name}.mixer", read, *negated(joined, 3 * H))
    program.sigmoid(program.view(f"{p}.gates", p, "columns", 0, 3 * H))
    input, forget, output, cell = (program.view(f"{p}.{i}", p, "columns", i * H, (i + 1) * H) for i in range(4))
    program.call("tanh", cell, cell)
    program.call("divide", cell, input, cell)
    program.call("divide", c, forget, c)
    program.call("add", c, cell, c)
    program.call("tanh", c, cell)
    program.call("divide", cell, output, h)
    return h


def _mlp(program: Program, name: str, mixer: MLP, read: str, after: After) -> str:
    layers = [linear(layer) for layer in mixer.network if isinstance(layer, nn.Linear)]
    y = ""
    for i, (weight, bias) in enumerate([after(layers[0]), *layers[1:]]):
        hidden = program.product(f"{name}.mixer.{i}", read, -weight, -bias)
        read, y = program.ending_in_one(f"{hidden}.out", len(bias))
        program.silu(hidden, y, len(bias))
    return y


_MIXERS: dict[type[Encoder], Any] = {MinGRU: _min_gru, MinLSTM: _min_lstm, GRU: _gru, LSTM: _lstm, MLP: _mlp}
