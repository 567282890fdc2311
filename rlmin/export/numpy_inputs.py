"""The inputs of a policy as a program for numpy: the computation of rlmin.policy.inputs for every leaf."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from torch import Tensor, nn

from rlmin.encoders.numpy_program import INSTEAD, Linear, Program, array, centre, linear
from rlmin.export.numpy_policy import input_name
from rlmin.policy import Policy
from rlmin.policy.inputs import (
    PREVIOUS_ACTION,
    PREVIOUS_REWARD,
    Choices,
    Inputs,
    Numbers,
    Picture,
    PreviousAction,
    PreviousReward,
    Symbols,
)
from rlmin.policy.normalize import Range
from rlmin.spaces import NUMPY_TYPE, Leaf, leaves_of


def embed(program: Program, policy: Policy, inputs: Inputs, width: int) -> str:
    """Every leaf fills its columns of one wide row, and one product turns it into the residual stream."""
    makers: dict[type, Any] = {Numbers: _numbers, Choices: _choices, Symbols: _symbols, Picture: _picture}
    parts: list[Linear] = []
    for i, (leaf, module) in enumerate(zip(leaves_of(policy.acting_space), inputs.embed, strict=True)):
        if type(module) not in makers:
            raise ValueError(f"export to numpy: input {leaf.name!r} is a {type(module).__name__}; {INSTEAD}")
        source = program.buffer(f"input{i}", *leaf.shape, dtype=np.dtype(NUMPY_TYPE[leaf.dtype]).name)
        program.inputs[input_name(leaf.name, leaf.path)] = source
        parts.append(makers[type(module)](program, f"input{i}", module, leaf, partial(_columns, program, parts)))
    for name, previous in ((PREVIOUS_ACTION, inputs.action), (PREVIOUS_REWARD, inputs.reward)):
        if previous is not None:
            program.inputs[name] = name
            parts.append(_previous(program, name, previous, policy, partial(_columns, program, parts)))
    weight = np.concatenate([part for part, _ in parts], 1)
    bias = np.sum([shift for _, shift in parts], 0)
    program.buffer("joined", weight.shape[1] + 1, fill=1)
    return program.product("x", "joined", *centre((weight, bias)))


def _columns(program: Program, parts: list[Linear], name: str, size: int) -> str:
    """A view of the columns of the wide row that come after those of `parts`."""
    at = sum(weight.shape[1] for weight, _ in parts)
    return program.view(name, "joined", "columns", at, at + size)


Columns: TypeAlias = Callable[[str, int], str]


def _numbers(program: Program, name: str, embed: Numbers, leaf: Leaf, columns: Columns) -> Linear:
    """(x - low) / span of integers, (x - mean) * scale or a range, a product, silu."""
    size, raw = embed.size, program.view(f"{name}.flat", name, "reshape", ["B", embed.size])
    read, x = program.ending_in_one(f"{name}.read", size)
    if embed.scaled:
        program.call("subtract_whole", raw, program.weight(f"{name}.low", array(embed.low, np.int64)), x)
        program.call("divide", x, program.weight(f"{name}.span", array(embed.span)), x)
    else:
        program.call("copyto", x, raw)
    if isinstance(embed.norm, Range):
        program.call("minimum", x, program.weight(f"{name}.high", array(embed.norm.high)), x)
        program.call("maximum", x, program.weight(f"{name}.low", array(embed.norm.low)), x)
    elif embed.norm is not None:
        mean, var = (array(part) for part in (embed.norm.mean, embed.norm.var))
        program.call("subtract", x, program.weight(f"{name}.mean", mean), x)
        program.call("multiply", x, program.weight(f"{name}.scale", (var + embed.norm.eps) ** -0.5), x)
        program.call("minimum", x, program.buffer(f"{name}.clip", fill=embed.norm.clip, rows=False), x)
        program.call("maximum", x, program.buffer(f"{name}.floor", fill=-embed.norm.clip, rows=False), x)
    first, second = (linear(embed.net[i]) for i in (0, 2))
    width = len(first[1])
    hidden = program.product(f"{name}.first", read, -first[0], -first[1])
    program.silu(hidden, columns(f"{name}.columns", width), width)
    return second


def _choices(program: Program, name: str, embed: Choices, leaf: Leaf, columns: Columns) -> Linear:
    """A 1 in the column of each choice; the normaliser is part of the product."""
    start = 0 if leaf.start is None else leaf.start.numpy().reshape(-1)
    _hot(program, name, array(embed.offset, np.int64) - start, columns(f"{name}.columns", embed.total))
    weight, bias = linear(embed.projection)
    if embed.norm is None:
        return weight, bias
    scale = (array(embed.norm.var) + embed.norm.eps) ** -0.5
    return weight * scale, bias - weight @ (array(embed.norm.mean) * scale)


def _hot(program: Program, name: str, offset: np.ndarray, columns: str) -> None:
    place = program.buffer(f"{name}.place", len(offset), dtype="int64")
    raw = program.view(f"{name}.flat", name, "reshape", ["B", len(offset)])
    program.call("add", raw, program.weight(f"{name}.offset", offset), place)
    program.call("one_hot", columns, place)


def _symbols(program: Program, name: str, embed: Symbols, leaf: Leaf, columns: Columns) -> Linear:
    """A row of the table for each symbol, summed over the channels of a cell; silu."""
    source, shape = name, leaf.shape
    if embed.channels_first:
        source, shape = program.view(f"{name}.last", name, "transpose", [0, 2, 3, 1]), (*shape[1:], shape[0])
    index = program.buffer(f"{name}.index", *shape, dtype="int64")
    program.call("add", source, program.weight(f"{name}.offset", array(embed.offset, np.int64)), index)
    each = program.buffer(f"{name}.each", *shape, embed.SIZE)
    program.call("take", program.weight(f"{name}.table", -array(embed.table.weight)), index, each)
    size = embed.projection.in_features
    negated = program.buffer(f"{name}.cells", size)
    grid = program.view(f"{name}.grid", negated, "reshape", ["B", *shape[:-1], embed.SIZE])
    program.call("sum", each, -2, grid)
    program.silu(negated, columns(f"{name}.columns", size), size)
    return linear(embed.projection)


def _picture(program: Program, name: str, embed: Picture, leaf: Leaf, columns: Columns) -> Linear:
    """Convolutions as products of windows; [B, rows, columns, channels] throughout."""
    lead, (row, column) = embed.order[:-2], embed.order[-2:]  # lead: frames, channels
    rows, wide, channels = leaf.shape[row], leaf.shape[column], math.prod(leaf.shape[axis] for axis in lead)
    source = program.view(f"{name}.last", name, "transpose", [0, *(1 + axis for axis in (row, column, *lead))])
    if len(lead) > 1:  # frames and channels on separate axes cannot be viewed as one axis
        stack = program.buffer(f"{name}.stack", rows, wide, *(leaf.shape[axis] for axis in lead))
        program.call("copyto", stack, source)
        source = stack
    source = program.view(f"{name}.picture", source, "reshape", ["B", rows, wide, channels])
    for i, convolution in enumerate(module for module in embed.net if isinstance(module, nn.Conv2d)):
        size, stride = convolution.kernel_size[0], convolution.stride[0]
        rows, wide = (rows - size) // stride + 1, (wide - size) // stride + 1
        own, inside = f"{name}.{i}", channels * size * size
        windows = program.view(f"{own}.windows", source, "windows", size, stride)
        read = program.buffer(f"{own}.read", rows, wide, inside + 1, fill=1)
        first = program.view(f"{own}.first", read, "all_but_last")
        first = program.view(f"{own}.filled", first, "reshape", ["B", rows, wide, channels, size, size])
        program.call("copyto", first, windows)
        weight, bias = linear(convolution)
        weight = weight.reshape(len(weight), -1) / (embed.largest if i == 0 else 1)
        channels = len(weight)
        source = program.buffer(own, rows, wide, channels)
        kernel = program.weight(f"{own}.weight", np.concatenate([weight.T, bias[None]]))
        lines = [
            program.view(f"{x}.lines", x, "reshape", [-1, last]) for x, last in ((read, inside + 1), (source, channels))
        ]
        program.call("matmul", lines[0], kernel, lines[1])
        program.call("maximum", source, "zero", source)
    last = cast(nn.Linear, embed.net[-1])
    flat = program.view(f"{name}.flat", source, "reshape", ["B", last.in_features])
    program.call("copyto", columns(f"{name}.columns", last.in_features), flat)
    weight, bias = linear(last)  # of channels, rows, columns; here channels are last
    moved = weight.reshape(-1, channels, rows, wide).transpose(0, 2, 3, 1)
    return moved.reshape(weight.shape), bias


def _previous(program: Program, name: str, previous: nn.Module, policy: Policy, columns: Columns) -> Linear:
    """The previous action or reward, and a last column that stands for "none"."""
    embed, none = cast(Any, previous).embed, array(cast(Tensor, cast(Any, previous).none))
    weight, bias = linear(embed.projection if isinstance(embed, Choices) else embed)
    size = weight.shape[1]
    own = columns(f"{name}.columns", size + 1)
    if isinstance(embed, Choices):
        program.buffer(name, *policy.action_head.event_shape, dtype="int64")
        _hot(program, name, array(embed.offset, np.int64), own)
    else:
        program.buffer(name, *(() if isinstance(previous, PreviousReward) else (size,)))
        flat = program.view(f"{name}.flat", name, "reshape", ["B", size])
        read = program.view(f"{name}.own", own, "columns", 0, size)
        program.call("copyto", read, flat)
        if isinstance(previous, PreviousAction):
            for limit, bound in (("minimum", previous.most), ("maximum", previous.least)):
                program.call(limit, read, program.weight(f"{name}.{limit}", array(bound)), read)
        program.call("copyto", program.view(f"{name}.none", own, "column", size), "zero")
    program.call("blank", own, "start")
    return np.concatenate([weight, (none - bias)[:, None]], 1), bias
