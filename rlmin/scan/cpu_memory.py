"""Large CPU tensors in memory that was used before.

The C library returns every large block to the system when a tensor is freed, and the next tensor pays for each page
again: a product of two matrices into 32 MB of fresh memory takes twice as long as into used memory. A training step
needs the same few sizes over and over, so blocks of freed tensors are kept and reused. Sizes are rounded up by at most
an eighth, so that minibatches whose sequences differ in length can share blocks.
"""

import math
import weakref

import torch
from torch import Tensor

_LARGE = 1 << 19  # bytes; the C library keeps smaller blocks itself
_LIMIT = 1 << 29  # bytes kept in all

_spare: list[Tensor] = []  # oldest first


def empty(*size: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty` on the CPU; a large tensor reuses the memory of an earlier one of similar size, if there is one.

    Args:
        size: of the tensor.
        dtype: a dtype that NumPy knows.

    Returns:
        An ordinary tensor. When the last reference to its memory is gone, the memory becomes spare; at most 512 MB
        are kept, the latest.
    """
    length = math.prod(size) * dtype.itemsize
    if length < _LARGE:
        return torch.empty(size, dtype=dtype)
    step = 1 << (length.bit_length() - 4)
    block = _take(-(-length // step) * step)
    array = block[:length].view(dtype).view(size).numpy()
    weakref.finalize(array, _give_back, block).atexit = False
    return torch.from_numpy(array)  # which keeps `array` alive for as long as anything uses the memory


def _take(length: int) -> Tensor:
    for i in range(len(_spare) - 1, -1, -1):
        if len(_spare[i]) == length:
            return _spare.pop(i)
    return torch.empty(length, dtype=torch.uint8)


def _give_back(block: Tensor) -> None:
    _spare.append(block)
    while sum(map(len, _spare)) > _LIMIT:
        _spare.pop(0)
