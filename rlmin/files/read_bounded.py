"""Bytes of a file of a bounded size: whatever is wrong with the file is one ValueError that names it."""

from pathlib import Path

PART = 2**20
"""Number of bytes read at once."""


def read_bounded(path: Path, *, most: int, form: str) -> bytes:
    """The content of a file.

    Args:
        path: of the file.
        most: bytes that a file of this form may have.
        form: name of the format, for the error message.

    Raises:
        ValueError: it cannot be read, or is larger.
    """
    if path.exists() and not path.is_file():  # nobody may ever write to a pipe, or close it
        raise ValueError(f"{path}: cannot be read (it is no file)")
    content = bytearray()
    try:
        with path.open("rb") as file:  # a part at a time: a single read would allocate `most` bytes first
            while len(content) <= most and (part := file.read(PART)):
                content += part
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise ValueError(f"{path}: expected at most {most / 2**20:g} MiB of {form}")
    return bytes(content)
