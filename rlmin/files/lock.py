"""A lock on a run folder: one process trains or saves there at a time.

The lock is the kernel's, on the file .lock in the folder, and is gone with the process that holds it, however that
ends. It keeps out rlmin only; reading needs no lock.
"""

import contextlib
import errno
import os
import platform
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # anywhere else
    msvcrt = None

LOCK = ".lock"

FAR = 2**30
"""Byte of the file that is locked on Windows. It lies far behind the text, as nobody can read a locked byte."""

FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)

_held: dict[Path, int] = {}
"""Folders that this process holds, and the handles of their locks."""

_threads: dict[Path, int] = {}
"""The thread that holds each of them."""


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the run folder, which is made where there is none.

    Raises:
        ValueError: another process, or another run in this one, holds it.
    """
    key, thread = folder.resolve(), threading.get_ident()
    if _threads.setdefault(key, thread) != thread or key in _held:
        raise ValueError(f"{folder}: this process is training or saving there already; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _held[key] = _lock_file(folder)
    except BaseException:
        _threads.pop(key, None)
        raise
    try:
        yield
    finally:
        _release(key)


@contextlib.contextmanager
def lock_or_own(folder: Path) -> Iterator[None]:
    """As `lock_folder`; a folder that this thread holds already is simply used."""
    if folder.resolve() in _held and _threads.get(folder.resolve()) == threading.get_ident():
        yield
        return
    with lock_folder(folder):
        yield


def check_free(folder: Path) -> None:
    """Raise a ValueError if somebody trains in the folder."""
    if folder.is_dir():
        with lock_folder(folder):
            pass


def wait_until_free(folder: Path, *, seconds: float) -> None:
    """Wait until nobody trains in the folder, at most so long; whoever then locks it gets the error."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return check_free(folder)
        except ValueError:
            time.sleep(0.2)


def _lock_file(folder: Path) -> int:
    """The handle of the locked file; -1 where there are no locks."""
    path = folder / LOCK
    while True:
        handle = os.open(path, FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                os.close(handle)
                raise ValueError(f"{path}: expected a file that locks the folder, found a pipe or a device; remove it")
            _lock(handle)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise ValueError(
                f"{folder}: {holder} is training or saving there; wait for it, stop it, or choose another folder"
            ) from None
        except OSError as error:  # raised by a file system without locks
            os.close(handle)
            path.unlink(missing_ok=True)
            warnings.warn(
                f"{folder}: no lock to be had there ({error.strerror}); nothing keeps a second process out",
                stacklevel=4,
            )
            return -1
        if _is_at(path, handle):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
            return handle
        os.close(handle)  # its holder has just removed it; the next try makes a new one


def _lock(handle: int) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: another process holds it.
        OSError: there are no locks here.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    if msvcrt is None:
        raise OSError(errno.ENOLCK, "this system has none that rlmin knows")
    os.lseek(handle, FAR, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError from None
        raise
    finally:
        os.lseek(handle, 0, os.SEEK_SET)


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _release(key: Path) -> None:
    handle = _held.pop(key, -1)
    if handle < 0:
        _threads.pop(key, None)
        return
    if fcntl is None:
        os.close(handle)  # Windows removes no open file, be it ours or that of the next holder
    with contextlib.suppress(OSError):  # the folder was removed
        (key / LOCK).unlink()  # while it is locked: nobody else can have it
    if fcntl is not None:
        os.close(handle)
    _threads.pop(key, None)  # last: another thread may then take it


def _forget() -> None:
    """In a forked child: the locks are the parent's, and must end with the parent alone."""
    for handle in _held.values():
        if handle >= 0:
            os.close(handle)
    _held.clear()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
