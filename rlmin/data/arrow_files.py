"""Minari's folders of Arrow and Parquet files: the sizes that a file states are checked before it is read.

    <folder>/<episode>/*.arrow or *.parquet     rows of an episode
    <folder>/<episode>/metadata.json            facts about it

Such a file can claim any number of rows, and pack gigabytes into a few bytes. An Arrow file is checked by its footer:
its parts may not be packed (Minari packs none), and the rows of each part have to be in the file. Arrow trusts the
offsets in a file, so each part is validated before Minari reads it. A Parquet file states how many values a column has.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlmin.checks import require
from rlmin.data.written import check_size
from rlmin.files.read_json import read_json

FORMATS = ("arrow", "parquet")
MAGIC = b"ARROW1"
RECORD_BATCH = 3
"""Kind of a message in an Arrow file that holds rows."""


def check_arrow(folder: Path, kind: str, where: str) -> None:
    """Check every file of a folder.

    Args:
        folder: of the episodes.
        kind: of the files, one of `FORMATS`.
        where: the dataset, for messages.

    Raises:
        ValueError: a file is damaged, says more than is in it, or holds something else than Minari writes.
        ImportError: pyarrow is not installed.
    """
    require("pyarrow", extra="tables")
    check = _check_arrow_file if kind == "arrow" else check_parquet_file
    for path in sorted(folder.glob("*/**/*")):
        name = f"{where}: {path.relative_to(folder)}"
        if path.is_symlink():
            raise ValueError(f"{name}: expected a file, found a link")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"{name}: expected a file, found a pipe or a device")
        if path.name == "metadata.json":
            read_json(path)
        elif path.is_file() and not path.name.startswith(("_", ".")):
            try:
                check(path, name)
            except (ValueError, LookupError, TypeError, OSError, struct.error, NotImplementedError) as error:
                words = str(error) if str(error).startswith(name) else f"{name}: damaged ({error!s:.200})"
                raise ValueError(words) from None


def _check_arrow_file(path: Path, name: str) -> None:
    """Check one Arrow file: footer, types, sizes, offsets."""
    pa = require("pyarrow", extra="tables")
    content, size = path.read_bytes(), path.stat().st_size
    rows = list(_batch_rows(content, name))
    with pa.ipc.open_file(pa.BufferReader(content)) as reader:
        width = sum(_width(field.type, f"{name}: {field.name}") for field in reader.schema)
        check_size(width * sum(rows), size, name)
        for i in range(reader.num_record_batches):
            reader.get_batch(i).validate(full=True)  # else an offset beyond the end is read as it is


def check_parquet_file(path: Path, name: str) -> None:
    """Raise a ValueError if a Parquet file has columns of other types, or says more than is in it."""
    parquet = require("pyarrow.parquet", extra="tables")
    size = path.stat().st_size
    with parquet.ParquetFile(path) as file:
        width = sum(_width(field.type, f"{name}: {field.name}") for field in file.schema_arrow)
        found = file.metadata
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(found.num_columns)]
    claimed = sum(8 * column.num_values + column.total_uncompressed_size for column in columns)
    check_size(max(claimed, width * found.num_rows), size, name)
    texts = {column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"}
    for text in sorted(texts):  # one long text may stand in every row
        check_size(_text_bytes(path, text), size, f"{name}: {text}")


def _text_bytes(path: Path, column: str) -> int:
    """Bytes of all texts of a column, of which only the different ones are read."""
    pa, parquet = require("pyarrow", extra="tables"), require("pyarrow.parquet", extra="tables")
    compute = require("pyarrow.compute", extra="tables")
    found: Any = parquet.read_table(path, columns=[column], read_dictionary=[column], partitioning=None).column(0)
    while pa.types.is_struct(found.type):
        found = compute.struct_field(found, [0])
    chunks = [chunk for chunk in found.chunks if pa.types.is_dictionary(chunk.type)]
    lengths = (compute.take(compute.binary_length(chunk.dictionary), chunk.indices) for chunk in chunks)
    return sum(int(compute.sum(length).as_py() or 0) for length in lengths)


def _width(kind: Any, name: str) -> int:
    """Bytes of a row in numpy; for text and bytes, whose lengths are in the file, those of a pointer."""
    types = require("pyarrow", extra="tables").types
    if types.is_struct(kind):
        return sum(_width(field.type, f"{name}.{field.name}") for field in kind) or 8
    if types.is_fixed_size_list(kind):
        return max(8, int(kind.list_size) * _width(kind.value_type, name))
    if types.is_list(kind) and types.is_primitive(kind.value_type):
        return 8
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return 8
    if types.is_null(kind) or types.is_string(kind) or types.is_binary(kind):
        return 8
    raise ValueError(f"{name}: expected numbers, text or lists of numbers, found {kind}")


def _batch_rows(content: bytes, name: str) -> Iterator[int]:
    """Rows of each part of an Arrow file; a ValueError if a part is packed or is none of rows.

    Source: Arrow's columnar format, "IPC File Format", and its File.fbs and Message.fbs.
    """
    length, end = struct.unpack_from("<i6s", content, len(content) - 10)
    if end != MAGIC:
        raise ValueError(f"{name}: expected an Arrow file")
    footer = _Table.root(content, len(content) - 10 - length)
    if next(footer.blocks(2), None) is not None:
        raise ValueError(f"{name}: expected plain columns, found a dictionary")
    for place in footer.blocks(3):
        message = _Table.root(content, place + 8)  # behind the mark of a message and its length
        batch = message.table(2)
        if message.number(1, "B") != RECORD_BATCH or batch is None:
            raise ValueError(f"{name}: expected rows")
        if batch.table(3) is not None:
            raise ValueError(f"{name}: its parts are packed, so their sizes are unknown; save them unpacked")
        yield max(0, int(batch.number(0, "q")))


class _Table:
    """A table of a flatbuffer: field k lies where the k-th entry of its list of offsets says; 0: it has none."""

    def __init__(self, content: bytes, place: int) -> None:
        self.content, self.place = content, place
        self.fields = place - self._read("i", place)

    @classmethod
    def root(cls, content: bytes, place: int) -> "_Table":
        """The first table of a buffer."""
        (offset,) = struct.unpack_from("<I", content, _inside(place))
        return cls(content, place + offset)

    def number(self, k: int, form: str) -> int:
        """A number; 0 where there is none."""
        place = self._find(k)
        return 0 if place is None else self._read(form, place)

    def table(self, k: int) -> "_Table | None":
        """A table; None where there is none."""
        place = self._find(k)
        return None if place is None else _Table(self.content, place + self._read("I", place))

    def blocks(self, k: int) -> Iterator[int]:
        """Where the messages of a list of blocks begin."""
        place = self._find(k)
        if place is None:
            return
        place += self._read("I", place)
        for i in range(self._read("I", place)):
            yield self._read("q", place + 4 + 24 * i)

    def _find(self, k: int) -> int | None:
        if 4 + 2 * k >= self._read("H", self.fields):
            return None
        offset = self._read("H", self.fields + 4 + 2 * k)
        return self.place + offset if offset else None

    def _read(self, form: str, place: int) -> int:
        found: int = struct.unpack_from("<" + form, self.content, _inside(place))[0]
        return found


def _inside(place: int) -> int:
    """A place in a buffer, which Python would count from the end where it is below 0."""
    if place < 0:
        raise ValueError("an offset leads out of the file")
    return place
