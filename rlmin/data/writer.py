"""Writer: a Minari dataset that appears whole or not at all.

Episodes are written as they come to a hidden folder beside the other datasets; only `commit` gives it its name.
"""

import glob
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from rlmin.checks import require
from rlmin.data.recorder import Recorded
from rlmin.files.lock import check_free, lock_folder

HELD_BYTES = 32 * 2**20
"""Approximate number of bytes held in memory before they are written."""


def dataset_id(name: str) -> str:
    """`name` with a version, as Minari wants it: "cartpole/expert" -> "cartpole/expert-v0".

    Raises:
        ValueError: it is no name that Minari allows.
    """
    from minari.dataset.minari_dataset import DATASET_ID_RE

    matched = DATASET_ID_RE.fullmatch(name)
    if matched is None:
        raise ValueError(
            f"dataset {name!r}: expected a name as 'cartpole/expert-v0': letters, digits, - and _, "
            "and what stands before a / has at least two of them"
        )
    return name if matched["version"] else f"{name}-v0"


class DatasetWriter:
    """A dataset being written; leaving the `with` block without `commit` removes what was written."""

    def __init__(
        self,
        id: str,
        *,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        env_spec: EnvSpec | None,
        overwrite: bool = False,
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            id: see `dataset_id`.
            observation_space, action_space: of a single environment.
            env_spec: how to make the environment again; None: unknown.
            overwrite: `commit` replaces a dataset of this name.

        Raises:
            ValueError: there is a dataset or something else of this name, or the name cannot be used.
            ImportError: minari or h5py is not installed.
        """
        minari = require("minari", extra="offline")
        require("h5py", extra="offline")
        self.id, self.overwrite = dataset_id(id), overwrite
        self.path: Path = minari.storage.datasets_root_dir.get_dataset_path(self.id)
        self._put_back()
        self._check()
        self._temporary = minari.storage.datasets_root_dir.get_dataset_path() / f".{self.path.name}.{os.getpid()}"
        self._spaces = {"observation_space": observation_space, "action_space": action_space}
        self._env_spec = env_spec
        self._held: list[tuple[Recorded, dict[str, Any]]] = []
        self._bytes = 0
        self._held_lock: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        from minari.dataset.minari_storage import MinariStorage

        for left in self._temporary.parent.glob(f".{glob.escape(self.path.name)}.*[0-9]"):
            with suppress(ValueError):  # somebody is writing there
                check_free(left)
                shutil.rmtree(left, ignore_errors=True)
        self._held_lock = lock_folder(self._temporary)
        self._held_lock.__enter__()
        try:
            # no JPEG: pictures are kept as they were seen
            self._storage = MinariStorage.new(
                self._temporary / "data", env_spec=self._env_spec, jpeg_encoding=False, **self._spaces
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._let_go()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _let_go(self) -> None:
        """Give up the lock, whose file must not become a part of the dataset."""
        if self._held_lock is not None:
            self._held_lock.__exit__(None, None, None)
            self._held_lock = None

    def _put_back(self) -> None:
        """Give back the earlier dataset if a writer was killed between moving it away and renaming its own."""
        for old in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.old"):
            if self.path.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(self.path)

    def add(self, episode: Recorded, *, seed: int | None, about: dict[str, Any]) -> None:
        """Add one episode.

        Args:
            episode: as recorded.
            seed: seed of the reset of its environment; None: no seed.
            about: numbers and text that go with it.
        """
        self._held.append((episode, about if seed is None else {**about, "seed": seed}))
        self._bytes += episode.nbytes
        if self._bytes >= HELD_BYTES or len(self._held) >= 1000:
            self._flush()

    def commit(self, metadata: dict[str, Any]) -> None:
        """Write the rest and the metadata, and give the dataset its name.

        Raises:
            ValueError: in the meantime somebody else wrote a dataset of this name.
        """
        from minari.namespace import create_namespace, list_local_namespaces

        self._flush()
        own = {"dataset_id": self.id, "minari_version": require("minari", extra="offline").__version__}
        self._storage.update_metadata({**own, **metadata})
        self._check()
        namespace = self.id.rpartition("/")[0]
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        self._let_go()
        old = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
        try:
            if self.path.exists():
                self.path.rename(old)
            self._temporary.rename(self.path)
        except BaseException:  # between the two renames there is none of this name
            if old.exists() and not self.path.exists():
                old.rename(self.path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _check(self) -> None:
        if not self.path.exists():
            return
        if not (self.path / "data").is_dir():
            raise ValueError(f"dataset {self.id!r}: {self.path} is there already and is no dataset")
        if not self.overwrite:
            raise ValueError(f"dataset {self.id!r}: there is one already in {self.path.parent}; use --overwrite True")

    def _flush(self) -> None:
        if not self._held:
            return
        first = self._storage.total_episodes
        self._storage.update_episodes(_buffers(self._held))
        notes = [about for _, about in self._held]
        self._storage.update_episode_metadata(notes, range(first, first + len(notes)))
        self._held, self._bytes = [], 0


def _buffers(held: list[tuple[Recorded, dict[str, Any]]]) -> Iterable[Any]:
    from minari.data_collector import EpisodeBuffer

    for episode, _ in held:
        over = np.zeros(len(episode.rewards), dtype=bool)
        over[-1] = True
        yield EpisodeBuffer(
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=over & episode.terminated,
            truncations=over & (not episode.terminated),
        )
