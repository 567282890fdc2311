"""The cache of compiled CPU kernels: new sources never run old machine code."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

import rlmin
from rlmin.scan import cpu_cache

SCRIPT = """
import torch
from rlmin.scan import min_gru_scan
torch.set_num_threads(1)
z, c = torch.zeros(1, 1, 2), torch.full((1, 1, 2), 2.0)
print(min_gru_scan(z, c, torch.zeros(1, 2), activation="identity")[0].flatten().tolist())
"""
INLINED = ("cpu_math.py", "    if activation == IDENTITY:\n        return x, one\n")
EDITED = INLINED[1].replace("return x, one", "return x + one + one, one")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, as another checkout or installation has it."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(rlmin.__path__[0]), tmp_path / "rlmin", ignore=ignore)
    return tmp_path


def run(place: Path, **variables: str) -> list[float]:
    """What the kernels of the copy compute, in a process of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "PYTHONPATH", "RLMIN"))}
    kept |= {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "RLMIN_KERNEL": "cpu", **variables}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=place, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers: list[float] = eval(done.stdout)
    return numbers


def edit(place: Path) -> None:
    """Change a function that a kernel in another file inlines."""
    file = place / "rlmin" / "scan" / INLINED[0]
    text = file.read_text()
    assert INLINED[1] in text
    file.write_text(text.replace(INLINED[1], EDITED, 1))


def folders(place: Path) -> list[Path]:
    return sorted(place.glob("rlmin-kernels-*"))


def test_an_edit_of_an_inlined_function_is_seen(copy: Path) -> None:
    place = copy / "rlmin" / "scan" / "__pycache__"
    assert run(copy) == [1.0, 1.0]
    (first,) = folders(place)
    files = {path: path.stat().st_mtime_ns for path in first.rglob("*.nb*")}
    assert files, "the kernel was cached"
    assert run(copy) == [1.0, 1.0]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.nb*")} == files, "and taken from the cache"
    edit(copy)
    assert run(copy) == [2.0, 2.0]


@pytest.mark.slow
def test_new_sources_over_an_old_cache_do_not_run_it(copy: Path, tmp_path: Path) -> None:
    """An upgrade in place: pip replaces the sources and leaves the cache, here one that every version shares."""
    shared = str(tmp_path / "shared")
    assert run(copy, NUMBA_CACHE_DIR=shared) == [1.0, 1.0]
    stamps = {path: path.stat() for path in (copy / "rlmin").rglob("*.py")}
    edit(copy)
    for path, stamp in stamps.items():  # as old as they were, as files from a wheel are
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run(copy, NUMBA_CACHE_DIR=shared) == [2.0, 2.0]
    assert len(folders(Path(shared))) == 2


def test_the_digest_covers_every_kernel_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in Path(rlmin.__path__[0]).rglob("*.py"):
        compiles = "_numba" in path.read_text() or "@compiled" in path.read_text() or "@c_loop" in path.read_text()
        digested = any(path.is_relative_to(cpu_cache.PACKAGE / folder) for folder in cpu_cache.FOLDERS)
        assert not compiles or digested, f"{path}: a kernel outside of what is digested"
    for folder in cpu_cache.FOLDERS:
        shutil.copytree(cpu_cache.PACKAGE / folder, tmp_path / folder)
    monkeypatch.setattr(cpu_cache, "PACKAGE", tmp_path)
    found = {cpu_cache.digest()}
    for path in sorted(tmp_path.rglob("*.py")):
        path.write_text(path.read_text() + "\n")
        found.add(cpu_cache.digest())
        path.rename(path.with_name(f"other_{path.name}"))
        found.add(cpu_cache.digest())
    assert len(found) == 1 + 2 * len(list(tmp_path.rglob("*.py")))


def test_old_folders_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for i in range(9):
        old = tmp_path / f"rlmin-kernels-{i}"
        old.mkdir()
        os.utime(old, (i, i))
    (tmp_path / "of-others").mkdir()
    monkeypatch.setattr(cpu_cache, "_places", lambda: iter([tmp_path]))
    own = cpu_cache.folder.__wrapped__()
    assert set(tmp_path.iterdir()) == {
        own,
        tmp_path / "of-others",
        *(tmp_path / f"rlmin-kernels-{i}" for i in (6, 7, 8)),
    }


def test_where_nothing_is_writable_kernels_are_compiled_without_a_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cpu_cache, "_places", lambda: iter([tmp_path / "file", tmp_path / "file" / "below"]))
    assert cpu_cache.folder.__wrapped__() is None
    monkeypatch.setattr(cpu_cache, "folder", lambda: None)
    assert cpu_cache.build_cached(lambda **options: options) == {}


def test_the_callers_cache_folder_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cpu_cache._config, "CACHE_DIR", "theirs")
    monkeypatch.setattr(cpu_cache, "folder", lambda: tmp_path)
    seen = cpu_cache.build_cached(lambda **options: (options, cpu_cache._config.CACHE_DIR))
    assert seen == ({"cache": True}, str(tmp_path)) and cpu_cache._config.CACHE_DIR == "theirs"

    def fails(**options: bool) -> None:
        raise ValueError("of the compiler")

    with pytest.raises(ValueError, match="of the compiler"):
        cpu_cache.build_cached(fails)
    assert cpu_cache._config.CACHE_DIR == "theirs"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "a bit": flip,
    "empty": lambda path: path.write_bytes(b""),
    "numba's own form": lambda path: path.write_bytes(path.read_bytes()[32:]),
    "a folder": become_a_folder,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_absent(
    damage: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is compiled again, and is cached again unless a folder is in the way."""
    monkeypatch.setattr(cpu_cache, "folder", lambda: tmp_path)

    def add() -> tuple[int, int]:
        """What a new process computes, and how often it finds the loop in the cache."""
        loop = cpu_cache.build_cached(lambda **cache: numba.njit(**cache)(plus_one))
        return loop(1), sum(loop.stats.cache_hits.values())

    assert add() == (2, 0) and add() == (2, 1)
    for path in tmp_path.rglob(f"*.{suffix}"):
        DAMAGES[damage](path)
    assert add() == (2, 0)
    assert add() == (2, 0 if damage == "a folder" else 1)


def plus_one(x: int) -> int:
    return x + 1


def test_a_full_disk_leaves_the_loop_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cpu_cache, "folder", lambda: tmp_path)
    monkeypatch.setattr(cpu_cache.CheckedFiles, "_open_for_write", fail)
    assert cpu_cache.build_cached(lambda **cache: numba.njit(**cache)(plus_one))(1) == 2
    assert not list(tmp_path.rglob("*.nb*"))
