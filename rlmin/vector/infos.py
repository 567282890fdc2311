"""Infos of gymnasium's vector environments: one dict of arrays for all rows, split into one dict for each row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

MADE = {"final_info", "final_obs", "final_observation"}
"""Entries that vector environments add; rows that ended have them elsewhere."""


def split_infos(infos: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """The infos of each of `rows` environments.

    Args:
        infos: name -> array [B, ...], list or dict of such; "_name" [B] marks the rows that have it, by default all.
        rows: B.
    """
    found = [dict[str, Any]() for _ in range(rows)]
    for name, value in infos.items():
        if name in MADE or (name.startswith("_") and name[1:] in infos):
            continue
        marked = infos.get(f"_{name}")
        parts: Any = split_infos(value, rows) if isinstance(value, Mapping) else value
        whole = not hasattr(parts, "__len__") or len(parts) != rows  # of all environments together
        for row in range(rows):
            if marked is None or bool(marked[row]):
                found[row][name] = parts if whole else row_of(parts, row)
    return found


def row_of(batch: Any, row: int) -> Any:
    """One row of a batch: of every entry of a dict or tuple, and as numpy."""
    if isinstance(batch, Mapping):
        return {name: row_of(part, row) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row_of(part, row) for part in batch)
    one = batch[row]
    return one.cpu().numpy() if isinstance(one, Tensor) else one


def as_numpy(batch: Any) -> Any:
    """A batch of observations as numpy."""
    if isinstance(batch, Mapping):
        return {name: as_numpy(part) for name, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(as_numpy(part) for part in batch)
    return batch.cpu().numpy() if isinstance(batch, Tensor) else np.asarray(batch)
