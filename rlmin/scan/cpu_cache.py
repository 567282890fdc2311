"""The cache of compiled numba loops on disk: a folder named by a digest of all kernel sources.

Numba checks whether the file of a loop has changed, but not the files whose functions the loop inlines. After an edit
there, or an upgrade that leaves the old cache behind, it would run old machine code. With a digest of all sources in
the name of the folder, each set of sources finds only its own machine code.

Numba also trusts the files themselves: one that a crash or a full disk has cut short ends the program. Here each file
begins with a digest of the rest, and one that does not fit it counts as absent: its loop is compiled again.
"""

import contextlib
import functools
import hashlib
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numba.core.caching

PACKAGE = Path(__file__).parent.parent
FOLDERS = ("scan", "kernels")
"""Folders of the package that hold kernels."""
NAME = "rlmin-kernels-"
KEPT = 3
"""Number of folders of other sources that stay, the latest: several versions may share a place."""
_config: Any = numba.config
_caching: Any = numba.core.caching


def build_cached(build: Callable[..., Any]) -> Any:
    """The result of `build(cache=True)`, kept in this version's folder; of `build()` if no folder is writable."""
    place = folder()
    if place is None:
        return build()
    before = _config.CACHE_DIR, _caching.IndexDataCacheFile
    _config.CACHE_DIR, _caching.IndexDataCacheFile = str(place), CheckedFiles
    try:
        return build(cache=True)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return build()
    finally:
        _config.CACHE_DIR, _caching.IndexDataCacheFile = before


class CheckedFiles(_caching.IndexDataCacheFile):  # type: ignore[misc]
    """The files of one loop: an index of its signatures, and the machine code of each."""

    def save(self, key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # the next process compiles again
            super().save(key, data)

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._source_stamp, overloads))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _load_index(self) -> dict[Any, str]:
        with contextlib.suppress(OSError):
            stamp, overloads = self._read(self._index_path)
            if stamp == self._source_stamp:
                return dict(overloads)
        return {}

    def _load_data(self, name: str) -> Any:
        return self._read(self._data_path(name))

    def _write(self, path: str, content: Any) -> None:
        data: bytes = self._dump(content)
        with self._open_for_write(path) as file:
            file.write(self._seal(data) + data)

    def _read(self, path: str) -> Any:
        """The content of a file; an OSError if it is not there or not whole, which numba takes for absent."""
        content = Path(path).read_bytes()
        seal, data = content[:32], content[32:]
        if seal != self._seal(data):
            raise OSError(f"{path}: not as it was written")
        return pickle.loads(data)

    def _seal(self, data: bytes) -> bytes:
        return hashlib.sha256(self._version.encode() + data).digest()  # other versions of numba have other content


def digest() -> str:
    """Digest of the names and contents of all kernel sources."""
    hasher = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")):
        content = path.read_bytes()
        hasher.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return hasher.hexdigest()[:16]


@functools.cache
def folder() -> Path | None:
    """The folder of this version, in NUMBA_CACHE_DIR, beside the sources or in the user's cache; None: nowhere."""
    for place in _places():
        with contextlib.suppress(OSError):
            found = place / (NAME + digest())
            found.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=found).close()  # raises if it is not writable
            found.touch()
            _drop_old(place, found)
            return found
    return None


def _places() -> Iterator[Path]:
    if _config.CACHE_DIR:
        yield Path(_config.CACHE_DIR)
        return
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # there is no home
        yield Path.home() / ".cache" / "rlmin"


def _drop_old(place: Path, own: Path) -> None:
    """Remove all but the latest folders of other sources; a process that still uses one compiles again."""
    others = [path for path in place.glob(f"{NAME}*") if path != own]
    for path in sorted(others, key=_age, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process removes it
        return 0.0
