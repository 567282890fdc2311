"""Groups of runs that differ only in the seed, named by the settings in which the groups differ."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from rlmin.encoders.cell import option_names
from rlmin.files.read_yaml import read_yaml
from rlmin.runs.checkpoint import CONFIG

READ = {
    "agent": "agent",
    "env.id": "env",
    "dataset.name": "dataset",
    "dataset.digest": "data",
    "run.device": "device",
    "total_timesteps": "total_timesteps",
}
"""Entries of config.yaml that distinguish runs, beside `config` and `env.kwargs`, and their names."""

MOST = 3
"""Largest number of settings in a name; beyond it, folder names are clearer."""

Settings = dict[str, Hashable]


@dataclass(frozen=True)
class Group:
    """Runs of one kind."""

    name: str
    folders: tuple[Path, ...]


def group_runs(folders: Sequence[Path], *, by_seed: bool = True) -> list[Group]:
    """Put runs together, in the order of their first members.

    Args:
        folders: runs; duplicates count once.
        by_seed: whether runs that differ only in the seed form one group; otherwise each is its own, named by its
            folder.

    Raises:
        ValueError: the settings of a run cannot be read.
    """
    different = list({folder.resolve(): folder for folder in map(Path, reversed(folders))}.values())[::-1]
    own_name = dict(zip(different, folder_names(different), strict=True))
    if not by_seed:
        return [Group(name, (folder,)) for folder, name in own_name.items()]
    known, members = list[Settings](), list[list[Path]]()
    for folder in different:
        settings = read_settings(folder)
        if settings not in known:
            known.append(settings)
            members.append([])
        members[known.index(settings)].append(folder)
    names = setting_names(known)
    if len(different) == 1 or not _tell_apart(names):
        names = [_before_seed([own_name[folder] for folder in of]) for of in members]
    if not _tell_apart(names):
        names = [own_name[of[0]] for of in members]
    return [Group(name, tuple(of)) for name, of in zip(names, members, strict=True)]


def expand_seeds(folders: Sequence[Path]) -> list[Path]:
    """The runs, where a folder of `rlmin train --seeds` stands for all of its seeds."""
    found: list[Path] = []
    for folder in folders:
        seeds = [] if (folder / CONFIG).exists() else sorted(folder.glob("seed-*"), key=lambda x: (len(x.name), x.name))
        found += [seed for seed in seeds if seed.is_dir()] or [folder]
    return found


def read_settings(folder: Path) -> Settings:
    """The settings of a run without its seed; without a config.yaml, the folder."""
    said = _read_config(folder)
    if said is None:
        return {"folder": str(folder)}
    flat: Settings = {"run.device": "cpu", **dict(_flat(said))}
    settings = {name: flat[key] for key, name in READ.items() if key in flat}
    for section in ("env.kwargs.", "config."):
        settings |= {key.removeprefix(section): x for key, x in flat.items() if key.startswith(section)}
    return settings


def read_task(folder: Path) -> Settings:
    """The task of a run: its environment with arguments, or its data; empty without a config.yaml."""
    flat = dict(_flat(_read_config(folder) or {}))
    task = {name: flat[key] for key, name in READ.items() if key in flat and name in ("env", "dataset", "data")}
    return task | {key.removeprefix("env.kwargs."): x for key, x in flat.items() if key.startswith("env.kwargs.")}


def read_seed(folder: Path) -> Hashable:
    """The seed of a run; the folder if it is unknown."""
    seed = (_read_config(folder) or {}).get("seed")
    return seed if isinstance(seed, int) else str(folder.resolve())


def setting_names(groups: Sequence[Settings]) -> list[str]:
    """A name for each group: the settings in which they differ, as in `encoder=min_gru`.

    Agents of different kinds are distinguished by agent, environment and data. A single group is named by its
    environment. If groups differ in more settings than a name can hold, all names are empty.
    """
    if len(groups) == 1:
        return [str(groups[0].get("env", "runs"))]
    mixed = len({settings.get("agent") for settings in groups}) > 1
    keys = READ.values() if mixed else dict.fromkeys(key for settings in groups for key in settings)
    differ = [key for key in keys if len({settings.get(key) for settings in groups}) > 1]
    if {"dataset", "data"} <= set(differ):
        differ.remove("data")  # the digest; the name says it better
    differ = [key for key in differ if not _follows_encoder(key, groups)]
    differ = differ if len(differ) <= MOST else []
    texts = [[f"{key}={_short(settings[key])}" for key in differ if key in settings] for settings in groups]
    otherwise = [str(settings.get("env", "")) if differ else "" for settings in groups]
    return [", ".join(text) or other for text, other in zip(texts, otherwise, strict=True)]


def _follows_encoder(key: str, groups: Sequence[Settings]) -> bool:
    """Whether a setting is an option of encoders, and equal in all groups of one encoder, whose name implies it."""
    values: dict[Hashable, set[Hashable]] = {}
    for settings in groups:
        values.setdefault(settings.get("encoder"), set()).add(settings.get(key))
    known = key.removeprefix("encoder_options.") in option_names()
    return known and len(values) > 1 and all(len(found) == 1 for found in values.values())


def folder_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path if these are not unique."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def _before_seed(names: Sequence[str]) -> str:
    """The common prefix of the folder names of a group; for one folder its whole name."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same).rstrip("-_") or names[0]


def _read_config(folder: Path) -> dict[str, Any] | None:
    """The content of config.yaml; None if there is none."""
    path = folder / CONFIG
    if not path.exists():
        return None
    said = read_yaml(path)
    return said if isinstance(said, dict) else {}


def _tell_apart(names: Sequence[str]) -> bool:
    return all(names) and len(set(names)) == len(names)


def _short(value: Hashable) -> str:
    text = "none" if value is None else str(value)
    return text[:8] if len(text) == 64 else text  # of a digest


def _flat(said: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Hashable]]:
    for key, value in said.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), tuple(value) if isinstance(value, list) else value
