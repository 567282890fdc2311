"""Files whose columns must be in them: a file of a few bytes can claim terabytes, made up as they are read."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from rlmin.checks import require

SMALL = 64 * 2**20
"""Bytes of a column that may be missing from a file."""
MOST_PACKED = 1100
"""Most bytes that one byte of a packed column may stand for; gzip, the best packer, reaches 1032."""


def check_size(claimed: int, written: int, where: str) -> None:
    """Raise a ValueError if `claimed` bytes cannot be what `written` bytes of a file stand for."""
    if claimed > SMALL + MOST_PACKED * written:
        raise ValueError(f"{where}: expected {claimed:,} bytes, of which {written:,} are in the file")


def check_written(column: Any, where: str) -> None:
    """Raise a ValueError if a column of HDF5, given by its low-level id, would be read though it is not in the file.

    A column that lies in other files is refused too: the author of this file does not choose what is read.
    """
    size = column.get_type().get_size() * column.get_space().get_simple_extent_npoints()
    check_size(size, column.get_storage_size(), where)
    made = column.get_create_plist()
    if made.get_external_count() or made.get_layout() == _virtual():
        raise ValueError(f"{where}: expected numbers in this file, found the name of another file")


def check_all_written(group: Any, where: str) -> None:
    """Check every column below a group. For ten thousand episodes, low-level ids are much quicker."""
    h5py = require("h5py", extra="offline")

    def visit(path: bytes) -> None:
        found = h5py.h5o.open(group.id, path)
        if isinstance(found, h5py.h5d.DatasetID):
            check_written(found, f"{where}: {path.decode(errors='replace')}")

    h5py.h5o.visit(group.id, visit)


def check_links(group: Any, where: str) -> None:
    """Raise a ValueError if a name below a group stands for a place in another file."""
    h5py = require("h5py", extra="offline")

    def find(path: bytes, link: Any) -> bytes | None:
        return path if link.type == h5py.h5l.TYPE_EXTERNAL else None

    found = group.id.links.visit(find, info=True)  # the first; an error in here would be lost
    if found is not None:
        name = found.decode(errors="replace")
        raise ValueError(f"{where}: {name}: expected numbers, found a link to another file")


def _virtual() -> int:
    found: int = require("h5py", extra="offline").h5d.VIRTUAL
    return found


def read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a .npz file, whose sizes are checked before anything is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else than numbers, or says more than is in it.
    """
    if path.exists() and not path.is_file():  # nobody may ever write to a pipe, or close it
        raise ValueError(f"{path} cannot be read as .npz of plain arrays (it is no file)")
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    _check_array(file, entry, str(entry.filename))
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise errors of many classes
        words = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as .npz of plain arrays ({words:.300})") from None


def _check_array(file: Any, entry: zipfile.ZipInfo, name: str) -> None:
    """Check the header of an array."""
    readers: dict[Any, Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"{name}: format {version} of arrays")
    shape, _, dtype = readers[version](file)
    if dtype.kind not in "biufcSU":
        raise ValueError(f"{name}: expected numbers, got {dtype}")
    claimed = int(np.prod([dtype.itemsize, *shape], dtype=object))
    if claimed > entry.file_size:
        raise ValueError(f"{name}: expected {claimed:,} bytes, of which {entry.file_size:,} are in the file")
    check_size(claimed, entry.compress_size, name)
