"""The memory of a policy as a program for numpy: one step of the blocks of a Stack."""

from functools import partial
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from rlmin.encoders.block import Block
from rlmin.encoders.cell import CELLS, cell_of
from rlmin.encoders.numpy_program import (
    INSTEAD,
    NumpyForm,
    Program,
    array,
    centre,
    linear,
    require_class,
    scale_before,
)


def add_block(program: Program, name: str, block: Block, x: str, centred: bool) -> bool:
    """x + mixer(conv(norm(x))), then x + mlp(norm(x)), in place; returns whether the mean of x is 0 afterwards."""
    width, mixer, form = block.output_size, block.mixer, form_of(block)
    read, _ = program.ending_in_one(f"{name}.read", 2 * width if form.reads_memory else width)
    y = program.view(f"{name}.y", read, "columns", 0, width)
    if block.conv is None:
        scale, shift = add_norm(program, f"{name}.norm", block.norm, x, y, width, centred)
    else:
        scale, shift = np.ones(width), array(block.conv.bias)
        _convolve(program, name, block, x, y, centred)
    update = form.write(program, name, mixer, read, partial(scale_before, scale, shift))
    program.call("add", x, update, x)
    if block.mlp is None or block.mlp_norm is None:
        return False
    read, y = program.ending_in_one(f"{name}.mlp.read", width)
    scale, shift = add_norm(program, f"{name}.mlp.norm", block.mlp_norm, x, y, width, False)
    first, second = linear(block.mlp[0]), linear(block.mlp[2])
    hidden = program.product(f"{name}.mlp.first", read, *scale_before(scale, shift, (-first[0], -first[1])))
    read, y = program.ending_in_one(f"{name}.mlp.hidden", len(first[1]))
    program.silu(hidden, y, len(first[1]))
    program.call("add", x, program.product(f"{name}.mlp.second", read, *centre(second)), x)
    return True


def form_of(block: Block) -> NumpyForm:
    """The numpy form of a block's memory; a ValueError names the encoders that have one."""
    cell = cell_of(block.mixer)
    if cell is not None and cell.to_numpy is not None:
        return cell.to_numpy
    who = type(block.mixer).__name__ if cell is None else repr(cell.name)
    some = ", ".join(known.name for known in CELLS.values() if known.to_numpy is not None)
    raise ValueError(f"export to numpy: encoder {who} has no numpy form; {some} have one; {INSTEAD}")


def add_norm(
    program: Program, name: str, norm: nn.Module, x: str, out: str, width: int, centred: bool
) -> tuple[np.ndarray, np.ndarray]:
    """out = (x - mean) / |x - mean|, x too without its mean; scale and shift that make it LayerNorm's."""
    layer = require_class(norm, nn.LayerNorm)
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
