"""Tables: columns of tensors, one row after the other, in memory or memory-mapped in a folder."""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import torch
from tensordict import TensorDict
from torch import Tensor

IN_MEMORY = 2**30
"""Bytes of rows above which a table is memory-mapped, unless the caller decides."""
HIDDEN = ".rlmin-"
OLD = 7 * 24 * 3600
"""Seconds after which a folder left by a killed process is removed."""

Columns = Mapping[tuple[str, ...], tuple[tuple[int, ...], torch.dtype]]
"""Key of a nested TensorDict -> shape and dtype of one entry."""


def cache_folder() -> Path:
    """RLMIN_CACHE, else rlmin in the user's cache folder (XDG_CACHE_HOME or ~/.cache)."""
    folder = os.environ.get("RLMIN_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmin"


def allocate(columns: Columns, rows: int, folder: Path | None = None) -> TensorDict:
    """[rows] TensorDict of these columns, not yet filled; memory-mapped in `folder`, if one is given.

    Raises:
        ValueError: memory or disk are too small (a full one would kill the process while the columns are written).
    """
    if folder is None:
        _check_memory(rows * row_bytes(columns))
        return _nest({key: torch.empty((rows, *shape), dtype=dtype) for key, (shape, dtype) in columns.items()}, rows)
    folder.mkdir(parents=True)
    need, free = rows * row_bytes(columns), shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"{folder.parent}: expected {need / 2**30:.2f} GiB of room for a memory-mapped dataset, found "
            f"{free / 2**30:.2f}; name another folder with cache= or RLMIN_CACHE"
        )
    like = {key: torch.zeros((), dtype=dtype).expand(rows, *shape) for key, (shape, dtype) in columns.items()}
    # a leaf may have any name, a file may not
    _nest({tuple(quote(part, safe="") for part in key): x for key, x in like.items()}, rows).memmap_like(folder)
    return open_table(folder)


def _check_memory(need: int) -> None:
    """Raise a ValueError if so many bytes do not fit into the memory of this machine."""
    if not hasattr(os, "sysconf"):  # unknown
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > there:
        raise ValueError(
            f"dataset: expected {need / 2**30:,.2f} GiB of memory, this machine has {there / 2**30:.2f}; "
            "use cache=True or a folder to keep it on disk"
        )


def open_table(folder: Path) -> TensorDict:
    """The columns in a folder made by `allocate`; writing to them writes to the files."""
    found = TensorDict.load_memmap(folder)
    return _nest({tuple(map(unquote, key)): x for key, x in leaves(found)}, found.batch_size[0])


def leaves(rows: TensorDict) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Every column with its whole key."""
    for key, x in rows.items(include_nested=True, leaves_only=True):
        path: Any = key  # a text where it is not nested
        column: Any = x
        yield (path,) if isinstance(path, str) else path, column


def row_bytes(columns: Columns) -> int:
    """Bytes of one row."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in columns.values())


def temporary_folder(root: Path) -> Path:
    """A new hidden folder in `root`, which is created; leftovers of killed processes are removed after a week."""
    root.mkdir(parents=True, exist_ok=True)
    for left in find_abandoned(root, f"{HIDDEN}*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=HIDDEN, dir=root))


def find_abandoned(root: Path, pattern: str) -> list[Path]:
    """Folders in `root` that have not changed for a week."""
    return [path for path in root.glob(pattern) if time.time() - path.stat().st_mtime > OLD]


def _nest(columns: Mapping[tuple[str, ...], Tensor], rows: int) -> TensorDict:
    nested = TensorDict({}, [rows])
    for key, x in columns.items():
        nested[key] = x
    return nested
