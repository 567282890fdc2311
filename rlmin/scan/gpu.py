"""Triton on the GPU: one launch forward, one backward, gates recomputed in the backward pass, nothing stored but h.

Memory traffic per (step, row, channel), in elements; states and flags are negligible. This is the minimum, and the
reference for the time of these kernels:

              forward                  backward
    linear    decay, value -> h   3    grad, decay, h -> 2 grads               5
    minGRU    2 inputs -> h       3    grad, 2 inputs, h -> 2 grads            6
    minLSTM   3 inputs -> h       4    grad, 3 inputs, h -> 3 grads            8

Two variants, chosen by shape. `gpu_sequential.py` walks through time with a few lanes (row, channel) per thread; nearly
every training run has enough lanes to fill the memory system. `gpu_tile.py` runs a parallel scan over tiles of time,
for few lanes and many steps; it reads one gate a second time, from the cache.

Inputs are read in place, by their strides over time and rows, so columns of one wide projection cost no copy. There are
no atomics, so results repeat bit for bit. Nothing synchronises, so CUDA graphs can capture the kernels (after one
ordinary call with the same layout, which compiles). Offsets have 64 bits.
"""

import contextlib
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor

from rlmin.scan import gpu_sequential, gpu_tile
from rlmin.scan.activation import ACTIVATIONS, Option, split_option
from rlmin.scan.gradients import Saved

Plan = tuple[ModuleType, dict[str, Any]]
"""The module of the kernels, their constants and the options of the launch."""

SCANS = {"linear": 0, "gru": 1, "lstm": 2}
"""Those with kernels, and the KIND of each in `gpu_math.py`."""
_MANY_LANES = 1 << 14  # lanes from which the sequential kernel keeps enough loads in flight; estimated, not measured
_LONG = 64  # steps below which the parallel scan gains nothing

INTERPRETED = not isinstance(gpu_sequential.forward, triton.runtime.JITFunction)
"""Whether the kernels run in Triton's interpreter, on any device: TRITON_INTERPRET=1 was set before the import."""


def forward(
    name: str, inputs: tuple[Tensor, ...], state: Tensor, start: Tensor | None, option: Option
) -> tuple[Tensor, Tensor]:
    """Every state and the last one of scan `name`, defined in `reference.py`."""
    activation, reverse = split_option(option)
    like = inputs[-1]
    first, second, value = _split_inputs(inputs)
    flags = _flags(start)
    h = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    initial = state.contiguous()
    last = torch.empty_like(initial)
    strides = (*_strides(first), *_strides(second), *_strides(value), *_strides(flags))
    _launch("forward", name, activation, reverse, like, (first, second, value, initial, flags, h, last), strides)
    return h, last


def backward(
    name: str, grad_h: Tensor | None, grad_last: Tensor | None, saved: Saved, option: Option
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of scan `name` (including the value of the linear scan) and of the state."""
    inputs, state, start, h = saved
    activation, reverse = split_option(option)
    if name == "linear":
        inputs = (*inputs, h)  # read in any case; takes the place of the value
    first, second, value = _split_inputs(inputs)
    flags = _flags(start)
    grad = None if grad_h is None else _readable(grad_h)
    late = None if grad_last is None else grad_last.contiguous()
    states, initial = h.contiguous(), state.contiguous()
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs]
    grad_state = torch.empty_like(initial)
    arrays = (grad, late, first, second, value, initial, flags, states)
    strides = (*_strides(grad), *_strides(first), *_strides(second), *_strides(value), *_strides(flags))
    outputs = (*_split_inputs(tuple(grads)), grad_state)
    _launch("backward", name, activation, not reverse, h, (*arrays, *outputs), strides)
    return (*grads, grad_state)


def _split_inputs(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None, Tensor]:
    """First gate, second gate or None, value, each with its last axis contiguous; copied only if necessary."""
    first, *second, value = map(_readable, tensors)
    return first, second[0] if second else None, value


def _readable(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def _flags(start: Tensor | None) -> Tensor | None:
    return None if start is None else start.view(torch.uint8)


def _strides(x: Tensor | None) -> tuple[int, int]:
    return (0, 0) if x is None else (x.stride(0), x.stride(1))


def _launch(
    kernel: str,
    name: str,
    activation: str,
    reverse: bool,
    like: Tensor,
    arrays: tuple[Tensor | None, ...],
    strides: tuple[int, ...],
) -> None:
    """Run `kernel` (forward, backward) of scan `name` over all lanes, each program a block of them."""
    T, B, D = like.shape
    lanes = B * D
    if lanes == 0:
        return
    aligned = not any(x % 16 for x in (D, *strides[:-2]))  # the last two are the flags'
    module, options = plan(kernel, T, lanes, like.element_size(), aligned)
    run: Any = getattr(module, kernel)
    block = options["BLOCK"]
    with use_device(like.device):
        run[(triton.cdiv(lanes, block),)](
            *arrays,
            T,
            lanes,
            D,
            *strides,
            KIND=SCANS[name],
            ACTIVATION=ACTIVATIONS.index(activation),
            REVERSE=reverse,
            ONE_ROW=D % block == 0,
            **options,
        )


def plan(kernel: str, T: int, lanes: int, itemsize: int, aligned: bool) -> Plan:
    """The variant for a shape and its constants, which depend on T and B only through a few thresholds."""
    variant = tile if T >= _LONG and lanes < _MANY_LANES else sequential
    return variant(kernel, lanes, itemsize, aligned)


def sequential(kernel: str, lanes: int, itemsize: int, aligned: bool) -> Plan:
    """One warp per program. A thread takes 16 bytes of an array if lanes are many, fewer if more warps should run.

    It takes one or two elements if rows do not begin at multiples of 16, as it cannot load more at once.
    """
    wide = {2: 256 if kernel == "forward" else 128, 4: 128, 8: 64}[itemsize]  # 8 lanes of a gradient spill
    many = aligned and lanes >= 1 << 15
    block = max(wide if many and lanes >= 1 << 17 else wide // 2 if many else wide // 4, 128 // itemsize)
    steps = 8 if kernel == "forward" else 4
    # Without this loose bound on registers the assembler picks a tight one, and spills.
    bound = {} if torch.version.hip else {"maxnreg": 224}
    options = {"STEPS": steps, "STAGES": 3, "BLOCK": block, "num_warps": 1, "enable_fp_fusion": True}
    return gpu_sequential, options | bound


def tile(kernel: str, lanes: int, itemsize: int, aligned: bool) -> Plan:
    """Tiles of 32 by 32: larger ones run out of registers."""
    block = 16 if itemsize == 8 else 32
    return gpu_tile, {"STEPS": 32, "STAGES": 3, "BLOCK": block, "num_warps": 4, "enable_fp_fusion": True}


def use_device(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make the device of the tensors current, as Triton launches on the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)
