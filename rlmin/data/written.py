"""HDF5 files whose columns are in them: one of some bytes can claim terabytes, which are made up as they are read."""

from typing import Any

from rlmin.checks import require

SMALL = 64 * 2**20
"""Bytes of a column that may be there without having been written."""
MOST_PACKED = 1100
"""How many bytes one byte of a packed column may stand for; of gzip, the best that there is, at most 1032."""


def check_written(column: Any, where: str) -> None:
    """Raise a ValueError if reading a column, by its low-level id, would fill the memory with what nobody wrote."""
    size = column.get_type().get_size() * column.get_space().get_simple_extent_npoints()
    written = column.get_storage_size()
    if size > SMALL + MOST_PACKED * written:
        raise ValueError(f"{where}: expected {size:,} bytes, of which {written:,} are in the file")


def check_all_written(group: Any, where: str) -> None:
    """Check every column below a group. Of ten thousand episodes this is much quicker with low-level ids."""
    h5py = require("h5py", extra="offline")

    def visit(path: bytes) -> None:
        found = h5py.h5o.open(group.id, path)
        if isinstance(found, h5py.h5d.DatasetID):
            check_written(found, f"{where}: {path.decode(errors='replace')}")

    h5py.h5o.visit(group.id, visit)
