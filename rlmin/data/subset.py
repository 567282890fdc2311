"""Rows of a TensorDict that may be larger than the memory."""

import shutil
import weakref

import torch
from tensordict import TensorDict
from torch import Tensor

from rlmin.data.tables import IN_MEMORY, allocate, cache_folder, leaves, row_bytes, temporary_folder

COPIED = 2**25
"""Approximate number of bytes copied at once."""


def rows_of(rows: TensorDict, low: Tensor, high: Tensor) -> TensorDict:
    """The rows low[i] .. high[i] - 1, range after range.

    Consecutive ranges share the memory of `rows`. Others are copied; more than 1 GiB into
    memory-mapped files in `cache_folder()`, which are removed with the result.

    Args:
        rows: [N] TensorDict.
        low, high: [E] int64, low[i] <= high[i].
    """
    if bool((low[1:] == high[:-1]).all()):
        return _rows(rows, slice(int(low[0]), int(high[-1])))
    length = high - low
    before = length.cumsum(0) - length
    index = torch.repeat_interleave(low - before, length) + torch.arange(int(length.sum()))
    columns = {key: (tuple(x.shape[1:]), x.dtype) for key, x in leaves(rows)}
    if len(index) * row_bytes(columns) <= IN_MEMORY:
        return _rows(rows, index)
    folder = temporary_folder(cache_folder())
    chosen = allocate(columns, len(index), folder / "rows")
    weakref.finalize(chosen, shutil.rmtree, folder, True)
    size = max(1, COPIED // row_bytes(columns))
    for key in columns:
        for a in range(0, len(index), size):
            chosen[key][a : a + size] = rows[key][index[a : a + size]]
    return chosen


def _rows(rows: TensorDict, index: Tensor | slice) -> TensorDict:
    found = rows[index]
    assert isinstance(found, TensorDict), f"indexing gave {type(found).__name__}"
    return found
