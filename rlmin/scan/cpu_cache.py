"""The cache of compiled numba loops on disk: a folder named by a digest of all kernel sources.

Numba checks whether the file of a loop has changed, but not the files whose functions the loop inlines. After an edit
there, or an upgrade that leaves the old cache behind, it would run old machine code. With a digest of all sources in
the name of the folder, each set of sources finds only its own machine code.
"""

import contextlib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

PACKAGE = Path(__file__).parent.parent
FOLDERS = ("scan", "kernels")
"""Folders of the package that hold kernels."""
NAME = "rlmin-kernels-"
KEPT = 3
"""Number of folders of other sources that stay, the latest: several versions may share a place."""
_config: Any = numba.config


def build_cached(build: Callable[..., Any]) -> Any:
    """The result of `build(cache=True)`, kept in this version's folder; of `build()` if no folder is writable."""
    place = folder()
    if place is None:
        return build()
    before, _config.CACHE_DIR = _config.CACHE_DIR, str(place)
    try:
        return build(cache=True)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return build()
    finally:
        _config.CACHE_DIR = before


def digest() -> str:
    """Digest of the names and contents of all kernel sources."""
    hasher = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")):
        content = path.read_bytes()
        hasher.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return hasher.hexdigest()[:16]


@functools.cache
def folder() -> Path | None:
    """The folder of this version, in NUMBA_CACHE_DIR, beside the sources or in the user's cache; None: no place."""
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
