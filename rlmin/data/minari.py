"""Minari datasets, local or downloaded, as a source of blocks.

An episode of L steps has L + 1 observations; the last is the state after the last action, so observation[t] is
the one in which action[t] was taken. An episode that is marked neither terminated nor truncated at its end was cut by
the recorder, and counts as truncated.

Minari stores images as JPEG unless the recorder is configured otherwise; they then differ slightly from the originals.
"""

import contextlib
import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from rlmin.checks import require
from rlmin.data.arrow_files import FORMATS, check_arrow
from rlmin.data.d4rl import file_digest
from rlmin.data.dataset import Episode, Reference
from rlmin.data.episodes import blocks_of
from rlmin.data.reference import reference_in, reference_of
from rlmin.data.skipped import Skipped
from rlmin.data.source import Source, plain
from rlmin.data.written import check_all_written, check_links
from rlmin.files.read_json import read_json
from rlmin.files.trust import from_file
from rlmin.vector.make import import_provider

if TYPE_CHECKING:
    from minari import MinariDataset

METADATA = "metadata.json"
LEVELS = 6
"""Levels of folders in which datasets are looked for: namespaces, and the dataset."""
NOT_RECIPE = {"observation_space", "action_space", "env_spec", "total_episodes", "total_steps", "dataset_size"}


def open_minari(source: "str | MinariDataset", *, trust: bool = False, skipped: Skipped | None = None) -> Source:
    """A Minari dataset.

    Args:
        source: its id, which is searched in Minari's folder (MINARI_DATASETS_PATH) and, if it is not there, on Minari's
            remote; or a MinariDataset, which may be a selection of episodes.
        trust: whether it may import the modules that its metadata name: see `rlmin.files.trust`.
        skipped: gets episodes that do not fit the spaces, which are left out; None: they are errors.

    Raises:
        ValueError: there is no such dataset in either place, it is damaged, or it needs `trust`.
        ImportError: minari or h5py is not installed.
    """
    require("h5py", extra="offline")  # otherwise Minari would name an extra of its own
    dataset = _find(source, trust=trust) if isinstance(source, str) else source
    metadata = dict(dataset.storage.metadata)
    name = str(dataset.id)
    spec = dataset.env_spec
    observation_space, action_space = dataset.observation_space, dataset.action_space
    recipe = {key: plain(value) for key, value in metadata.items() if key not in NOT_RECIPE}
    if spec is not None:
        recipe["recorded in"] = spec.id
    return Source(
        name=name,
        observation_space=observation_space,
        action_space=action_space,
        num_steps=dataset.total_steps,
        num_episodes=dataset.total_episodes,
        blocks=lambda: blocks_of(_episodes(dataset, name), observation_space, action_space, name=name, skipped=skipped),
        fingerprint=lambda: _fingerprint(dataset),
        slow=True,
        env=(None if spec is None else env_of(spec, trust=trust)) or _collector_env(metadata, trust=trust),
        reference=_reference(metadata, name, spec),
        recipe=recipe,
    )


def local_datasets() -> list[str]:
    """A line for each dataset in Minari's folder."""
    minari = require("minari", extra="offline")
    require("h5py", extra="offline")
    lines, root = [], minari.storage.datasets_root_dir.get_dataset_path()
    for id, entry in _local(root).items():
        try:
            spec = json.loads(entry.get("env_spec") or "{}")
            where = f" of {spec['id']}" if spec else ""
            counted = f"{entry['total_episodes']:,} episodes, {entry['total_steps']:,} steps"
            lines.append(f"{id}: {counted}{where}")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            lines.append(f"{id}: damaged, its {METADATA} do not say what is in it")
    return lines or [f"no Minari dataset in {root}"]


def _local(root: Path) -> dict[str, Any]:
    """The metadata of each dataset in Minari's folder, empty where they cannot be read.

    Minari's own list opens whatever has their name, and waits for ever on a pipe.
    """
    found: dict[str, Any] = {}

    def walk(folder: Path, depth: int) -> None:
        for one in sorted(path for path in folder.iterdir() if path.is_dir()) if depth else ():
            if not (one / "data").is_dir():
                walk(one, depth - 1)
                continue
            id = one.relative_to(root).as_posix()
            try:
                found[id] = read_json(one / "data" / METADATA)
            except (ValueError, OSError):
                found[id] = {}

    with contextlib.suppress(OSError):  # there is no such folder yet, or it cannot be read
        walk(Path(root), LEVELS)
    return found


def env_of(spec: EnvSpec, *, trust: bool = False) -> dict[str, Any] | None:
    """How to make the environment of `spec` by its id; None if id and arguments are not enough.

    They are not for an id that is unknown here, for wrappers that do not come with the id, and for arguments that
    are not plain values. A spec is data: its id and arguments are used, its entry points never.
    """
    try:
        id = from_file(spec.id, trust=trust, where="env_spec")
        registered = gym.registry.get(import_provider(id))
    except (ImportError, ValueError):
        return None
    if registered is None or [x.name for x in spec.additional_wrappers] != [
        x.name for x in registered.additional_wrappers
    ]:
        return None
    given: Any = spec.kwargs
    if not isinstance(given, dict):  # a file may say anything
        return None
    kwargs = dict(given)
    if spec.max_episode_steps != registered.max_episode_steps:
        kwargs["max_episode_steps"] = -1 if spec.max_episode_steps is None else spec.max_episode_steps
    try:
        return {"id": id, "kwargs": json.loads(json.dumps(kwargs)), "workers": 0}
    except TypeError:
        return None


def _collector_env(metadata: dict[str, Any], *, trust: bool) -> dict[str, Any] | None:
    """The environment as `rlmin collect` stored it: its id may name a module ("a:Walk-v0"), which a spec drops."""
    recipe = metadata.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("env"), str) or recipe.get("shift"):
        return None
    id = from_file(recipe["env"], trust=trust, where=f"dataset {metadata.get('dataset_id')!r}")
    return {"id": id, "kwargs": dict(recipe.get("env_kwargs") or {}), "workers": 0}


def _episodes(dataset: "MinariDataset", name: str) -> Iterator[Episode]:
    e, early, last = 0, "", True
    try:
        for e, episode in enumerate(dataset.iterate_episodes()):
            last = bool(len(episode.terminations) and episode.terminations[-1])
            if not early and np.any(episode.terminations[:-1]):
                early = f"dataset {name!r}: episode {e}: step {int(np.argmax(episode.terminations))} is marked terminal"
            yield Episode(episode.observations, episode.actions, episode.rewards, last)
    except Exception as error:  # Minari and h5py raise errors of many classes for damaged files
        hint, words = "its files are damaged or were not copied whole; get it again", " ".join(str(error).split())
        raise ValueError(f"dataset {name!r}: cannot be read after episode {e} ({words:.300}); {hint}") from error
    if early:
        warnings.warn(f"{early}, but the episode continues; only a mark on the last step counts", stacklevel=2)


def _find(id: str, *, trust: bool) -> "MinariDataset":
    minari = require("minari", extra="offline")
    root = minari.storage.datasets_root_dir.get_dataset_path()
    if not (root / id / "data").exists():
        try:
            minari.download_dataset(id)
        except Exception as error:  # each remote, and the network, raises its own
            raise ValueError(f"no Minari dataset {id!r} in {root}{_near(minari, id)}; {_remote(error)}") from error
    try:
        entries = read_json(root / id / "data" / METADATA)
    except ValueError as error:
        raise ValueError(f"dataset {id!r}: {error}; get it again") from None
    if not trust:
        _check_spaces(entries, id)
    if entries.get("data_format") in FORMATS:
        check_arrow(root / id / "data", entries["data_format"], f"dataset {id!r}")
    else:
        _check_columns(root / id / "data", id)
    try:
        dataset: MinariDataset = minari.load_dataset(id)
        _ = dataset.total_steps, dataset.total_episodes, dataset.env_spec  # as its metadata say
    except Exception as error:  # see `_episodes`
        words = " ".join(str(error).split())
        raise ValueError(
            f"dataset {id!r}: {root / id} cannot be read by Minari ({words:.300}); get it again"
        ) from error
    if min(dataset.total_steps, dataset.total_episodes) < 0:
        raise ValueError(f"dataset {id!r}: expected counts of steps and episodes in its metadata; get it again")
    return dataset


def _check_spaces(entries: dict[str, Any], id: str) -> None:
    """Raise a ValueError if Minari would make the environment, by entry points from a file, to get its spaces."""
    lacking = [key for key in ("observation_space", "action_space") if not entries.get(key)]
    if lacking:
        raise ValueError(
            f"dataset {id!r}: its metadata have no {' and no '.join(lacking)}, so Minari would make its environment, "
            "and run the code that the metadata name. If you trust it: --trust (in Python: trust=True)"
        )


def _check_columns(folder: Path, id: str) -> None:
    """Raise a ValueError if Minari would read more than its files contain, or wait for a pipe."""
    h5py = require("h5py", extra="offline")
    for path in folder.glob("*.hdf5"):
        if path.exists() and not path.is_file():
            raise ValueError(f"dataset {id!r}: {path}: expected a file, found a folder, a pipe or a device")
        try:
            with h5py.File(path, "r") as file:
                check_all_written(file, f"dataset {id!r}: {path.name}")
                check_links(file, f"dataset {id!r}: {path.name}")
        except (OSError, RuntimeError, KeyError):
            return  # Minari explains the error


def _near(minari: Any, id: str) -> str:
    """Names of existing datasets, the most similar first."""
    known = list(_local(minari.storage.datasets_root_dir.get_dataset_path()))
    near = difflib.get_close_matches(id, known, n=3, cutoff=0.5)
    if near:
        return f" (did you mean {' or '.join(map(repr, near))}?)"
    return f" (there is {', '.join(known[:10])}{', ...' if len(known) > 10 else ''})" if known else " (which is empty)"


def _remote(error: Exception) -> str:
    if isinstance(error, TypeError):  # Minari's error for an id without a version
        return "an id ends with a version, as in 'D4RL/door/human-v2'"
    return f"it could not be downloaded either ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _reference(metadata: dict[str, Any], name: str, spec: EnvSpec | None) -> Reference | None:
    """The scores that rlmin wrote with their source, else D4RL's, else those in the dataset's metadata."""
    own = _own(metadata, name)
    if own is not None and "reference_source" in metadata:
        return own
    if spec is None:
        return reference_of(name) or own
    return reference_in(spec.id, spec.kwargs) or own


def _own(metadata: dict[str, Any], name: str) -> Reference | None:
    """The reference scores in the dataset's metadata."""
    random, expert = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if random is None or expert is None:
        return None
    entry = metadata.get("reference_source")  # rlmin's own datasets have it
    source = f"metadata of {name}" + (f", {entry}" if entry else "")
    return Reference(random=float(random), expert=float(expert), source=source)


def _fingerprint(dataset: "MinariDataset") -> str:
    files = sorted(path for path in Path(dataset.storage.data_path).rglob("*") if path.is_file())
    chosen = np.asarray(dataset.episode_indices, dtype=np.int64).tobytes()
    return hashlib.sha256(file_digest(files).encode() + chosen).hexdigest()
