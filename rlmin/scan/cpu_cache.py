"""Where compiled numba loops are kept on disk: in a folder named by a digest of all kernel sources.

Numba asks whether the file that holds a loop has changed, not the files whose functions the loop inlines. An edit
there, or an upgrade that leaves the old cache behind, would go on with old machine code. A digest of every source in
the name of the folder makes each set of sources find its own machine code only.
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
"""Folders of other sources that stay, the latest: several versions may share a place."""
_config: Any = numba.config


def build_cached(build: Callable[..., Any]) -> Any:
    """What `build(cache=True)` returns, kept in this version's folder; `build()` where no folder is writable."""
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
    """Of the names and contents of all kernel sources."""
    hasher = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")):
        content = path.read_bytes()
        hasher.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)} ".encode() + content)
    return hasher.hexdigest()[:16]


@functools.cache
def folder() -> Path | None:
    """The folder of this version: in NUMBA_CACHE_DIR, beside the sources or in the user's cache; None: none of them."""
    for place in _places():
        with contextlib.suppress(OSError):
            found = place / (NAME + digest())
            found.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=found).close()  # raises where it is not writable
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
    """Remove all but the latest folders of other sources; a process that still uses one compiles anew."""
    others = [path for path in place.glob(f"{NAME}*") if path != own]
    for path in sorted(others, key=_age, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process removes it
        return 0.0
