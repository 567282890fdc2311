"""A file by which a worker sees that its folder is the one that the command writes to."""

import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlmin.files.atomic import write_atomic

PATIENCE = 60.0
"""Seconds until a network file system shows a new file everywhere."""


@dataclass(frozen=True)
class Marker:
    """A file with a content that nobody can foresee."""

    path: Path
    token: str

    def check(self, *, seconds: float = PATIENCE) -> None:
        """Wait until the file is seen here.

        Raises:
            ValueError: it is not; the folder is not shared.
        """
        end = time.monotonic() + seconds
        while not self._is_seen():
            if time.monotonic() > end:
                raise ValueError(
                    f"{self.path.parent}: node {platform.node()} does not see the files that the command writes there; "
                    "name a folder by --out that all nodes share"
                )
            time.sleep(0.2)

    def _is_seen(self) -> bool:
        try:
            return self.path.read_text(encoding="utf-8") == self.token
        except OSError:
            return False


@contextmanager
def put_marker(folder: Path) -> Iterator[Marker]:
    """A marker in a folder, which is made where there is none; it is removed at the end."""
    token = secrets.token_hex(8)
    marker = Marker(folder / f".marker-{token}", token)
    write_atomic(marker.path, token.encode())
    try:
        yield marker
    finally:
        marker.path.unlink(missing_ok=True)
