"""Files that are seen either whole or not at all, also after a kill, a full disk or a power cut at any moment.

A file is written beside its place under a name that nobody can foresee, synced, and renamed. Several files are all
written before the first is renamed, so a full disk changes none of them.
"""

import contextlib
import glob
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

ENDING = ".rlmin"
"""Ending of temporary files: .NAME.RANDOM.rlmin"""

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags that open a temporary file: it must be new, and is never reached through a symlink."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file, and its folder. What was there before stays until all of the new content is on the disk."""
    write_in_order(path.parent, {path.name: content})


def write_in_order(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files of one folder, which is made where there is none; each appears whole, in this order.

    The first is on the disk, name and all, before the second gets its name: whoever finds the second new finds the
    first new too. Where writing fails, every file is as it was before.

    Raises:
        ValueError: a folder, a pipe or a device has that name, which a rename would replace.
        OSError: the disk is full or cannot be written to.
    """
    for name in contents:
        if (folder / name).exists() and not (folder / name).is_file():
            raise ValueError(f"{folder / name}: expected the name of a file, found a folder, a pipe or a device")
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    try:
        for name, content in contents.items():
            made.append(folder / f".{name}.{secrets.token_hex(8)}{ENDING}")
            _write_new(made[-1], content)
        for temporary, name in zip(made, contents, strict=True):
            os.replace(temporary, folder / name)
            sync_folder(folder)
    except BaseException:
        for temporary in made:
            with contextlib.suppress(OSError):  # gone already, or a disk that refuses this too
                temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what writers of these files left when they were killed; nobody else may be writing them."""
    for name in names:
        for path in folder.glob(f".{glob.escape(name)}.*"):
            with contextlib.suppress(OSError):  # it is in nobody's way
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, if the system can."""
    directory = getattr(os, "O_DIRECTORY", None)
    if directory is None:
        return
    handle = os.open(folder, os.O_RDONLY | directory)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(handle)
    finally:
        os.close(handle)


def _write_new(path: Path, content: bytes) -> None:
    handle = os.open(path, FLAGS, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)
