"""D4RL files: one HDF5 with a row for each step, read without the d4rl package.

    observations [N, ...], actions [N, ...], rewards [N], terminals [N], timeouts [N]; maybe next_observations [N, ...]
    (of the last three of the first five, [N, 1] does as well)

An episode ends where `terminals` or `timeouts` is set. The rows after the last such mark are an unfinished episode,
which counts as truncated.

The state after the last step of an episode is in `next_observations`. Without that key it is not in the file: the
next row belongs to the next episode, after the reset, whether the episode terminated or was cut. No step is dropped
(d4rl's own `qlearning_dataset` drops the last step of a cut episode): `final` then repeats the last observation,
and the recipe says so.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlmin.checks import require
from rlmin.data.reference import reference_of
from rlmin.data.source import BLOCK_BYTES, Block, Source, plain
from rlmin.data.space_of import space_of
from rlmin.data.written import check_links, check_written
from rlmin.spaces import SINGLE

KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")
NEXT = "next_observations"


def open_d4rl(
    path: Path,
    *,
    observation_space: gym.Space[Any] | None = None,
    action_space: gym.Space[Any] | None = None,
) -> Source:
    """A D4RL file.

    Args:
        path: HDF5; its stem is the name of the dataset, and determines the reference scores.
        observation_space, action_space: of a single environment, each one leaf; None: derived from the values, see
            `space_of`; in D4RL's own files actions lie in [-1, 1].

    Raises:
        ValueError: no such file, it is damaged, lacks a key, or its keys have different lengths.
        ImportError: h5py is not installed.
    """
    name = path.stem
    if not path.is_file():
        raise ValueError(f"dataset {name!r}: {path}: no such file")
    with _open(path) as file:
        _check(file, name)
        ends = np.flatnonzero(_flag(file, "terminals", name) | _flag(file, "timeouts", name)) + 1
        N = len(file["rewards"])
        terminated = _flag(file, "terminals", name)
        if not len(ends) and N > 1:
            warnings.warn(
                f"dataset {name!r}: no terminal and no timeout is set, so its {N} steps are one", stacklevel=2
            )
        if not len(ends) or ends[-1] != N:
            ends = np.append(ends, N)
        first = np.append(0, ends)
        seen = observation_space or space_of([file["observations"][:1]], where=f"dataset {name!r}: observations")
        where = f"dataset {name!r}: actions"
        taken = action_space or space_of(list(_extremes(file["actions"])), where=where, action=True)
        recipe: dict[str, Any] = {"format": "D4RL HDF5", "file": path.name}
        if NEXT not in file:
            recipe["final observation"] = "not in the file; the last one of each episode is repeated"
        recipe |= _metadata(file)
    return Source(
        name=name,
        observation_space=seen,
        action_space=taken,
        num_steps=N,
        num_episodes=len(ends),
        blocks=lambda: _blocks(path, first, terminated[ends - 1]),
        fingerprint=lambda: file_digest([path]),
        reference=reference_of(name),
        recipe=recipe,
    )


def file_digest(paths: list[Path]) -> str:
    """A digest that changes with the files: names, sizes, times, first and last MiB of each."""
    hasher = hashlib.sha256()
    for path in paths:
        status = path.stat()
        hasher.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
        with path.open("rb") as file:
            hasher.update(file.read(2**20))
            file.seek(max(0, status.st_size - 2**20))
            hasher.update(file.read())
    return hasher.hexdigest()


def _blocks(path: Path, first: np.ndarray, terminated: np.ndarray) -> Iterator[Block]:
    with _open(path) as file:
        row = sum(file[key].dtype.itemsize * int(np.prod(file[key].shape[1:])) for key in ("observations", "actions"))
        for low, high in _groups(first, max(1, BLOCK_BYTES // row)):
            a, b = int(first[low]), int(first[high])
            observation, last = file["observations"][a:b], first[low + 1 : high + 1] - 1 - a
            yield Block(
                observation={SINGLE: observation},
                final={SINGLE: (file[NEXT][a:b] if NEXT in file else observation)[last]},
                action=file["actions"][a:b],
                reward=file["rewards"][a:b].reshape(-1),
                length=np.diff(first[low : high + 1]),
                terminated=terminated[low:high],
            )


def _groups(first: np.ndarray, steps: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole episodes, each of about `steps` steps."""
    low = 0
    while low < len(first) - 1:
        high = max(low + 1, int(np.searchsorted(first, first[low] + steps, side="right")) - 1)
        yield low, high
        low = high


def _extremes(column: Any) -> Iterator[np.ndarray]:
    """[2, ...] smallest and largest values of each part of the column, in order."""
    for a in range(0, len(column), 2**17):
        part = column[a : a + 2**17]
        yield np.stack([part.min(0), part.max(0)])


def _check(file: Any, name: str) -> None:
    h5py = require("h5py", extra="offline")
    missing = [key for key in KEYS if key not in file]
    if missing:
        hint = ""
        if any(str(key).startswith("episode_") for key in file):
            hint = "; this looks like the inside of a Minari dataset, which is loaded by its id"
        elif missing == ["timeouts"]:
            hint = "; without it the ends of cut episodes are unknown"
        raise ValueError(f"dataset {name!r}: no key {', '.join(missing)}; found {', '.join(map(str, file))}{hint}")
    check_links(file, f"dataset {name!r}")
    held = [*KEYS, *([NEXT] if NEXT in file else [])]
    for key in held:
        if not isinstance(file[key], h5py.Dataset) or not file[key].shape:
            raise ValueError(f"dataset {name!r}: {key}: expected an array [N, ...], got {file[key]}")
    for key in held:
        check_written(file[key].id, f"dataset {name!r}: {key}")
    N = len(file["rewards"])
    for key in held:
        if len(file[key]) != N:
            raise ValueError(f"dataset {name!r}: expected {N} {key}, one for each reward, got {len(file[key])}")
        if key in KEYS[2:] and file[key].shape not in ((N,), (N, 1)):
            raise ValueError(f"dataset {name!r}: {key}: expected [N], got {list(file[key].shape)}")
    if NEXT in file and file[NEXT].shape != file["observations"].shape:
        raise ValueError(f"dataset {name!r}: {NEXT}: expected the shape of observations, got {list(file[NEXT].shape)}")
    if N == 0:
        raise ValueError(f"dataset {name!r}: expected at least one episode, got none")


def _flag(file: Any, key: str, name: str) -> np.ndarray:
    flag: np.ndarray = file[key][:].reshape(-1)
    wrong = np.flatnonzero((flag != 0) & (flag != 1))
    if len(wrong):
        raise ValueError(f"dataset {name!r}: {key}: expected 0 or 1, got {flag[wrong[0]]} in row {wrong[0]}")
    return flag.astype(bool)


def _metadata(file: Any) -> dict[str, Any]:
    """The small entries under `metadata`: algorithm, seeds and the like, without weights."""
    group = file.get("metadata", {})
    if not hasattr(group, "keys"):  # a column of that name
        return {}
    return {key: plain(group[key][()]) for key in group if getattr(group[key], "size", 2) == 1}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    h5py = require("h5py", extra="offline")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        hint, words = "the file is damaged or was not copied whole; get it again", " ".join(str(error).split())
        raise ValueError(f"dataset {path.stem!r}: {path} cannot be read as HDF5 ({words:.300}); {hint}") from error
