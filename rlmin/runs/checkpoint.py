"""Checkpoints: a folder of plain files, each written whole or not at all, none of which can execute code.

    learner.safetensors   everything: weights, optimizer, random numbers, memory, environment state; enough to continue
    policy.safetensors    its weights and normalisers; the header also holds config, spaces and counters
    config.yaml           the settings, for people to read

Each of the two tensor files is complete and is read alone, so nobody ever sees a mix of two saves. A save is complete
once learner.safetensors has its name; the other two are derived from it and follow. If a run was killed in between, the
newer file is read, as `saved` in the headers shows. A digest covers every tensor and every other header entry: an
edited file is refused. rlmin never reads a run's settings from config.yaml.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlmin.checks import old_names
from rlmin.files.atomic import remove_leftovers, write_in_order
from rlmin.files.atomic import write_atomic as write_atomic
from rlmin.files.lock import lock_or_own
from rlmin.files.plain import readable
from rlmin.files.trust import mark_header
from rlmin.runs.header import read_header_text, rebuild_spaces, write_header
from rlmin.spaces.as_json import space_to_json

FORMAT = "1"
CONFIG, POLICY, LEARNER = "config.yaml", "policy.safetensors", "learner.safetensors"

SEAL = "# to read only; of an edit, this no longer is the sha256 of what follows: "
STAMPED = 10**15
"""Stamps of saves are larger than this, numbers of steps smaller."""
LARGEST_CONFIG = 2**20
"""Number of bytes of config.yaml that are read."""

LOCKS_MAPPED_FILES = os.name == "nt"
"""Whether a file cannot be replaced while a tensor read from it is alive, as on Windows."""

Tensors = dict[str, Tensor]


def write(
    folder: Path,
    header: Mapping[str, Any],
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    policy: Mapping[str, Tensor],
    learner: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint to `folder`, which is created if necessary.

    Args:
        folder: folder of the run.
        header: plain values: agent, rlmin (its version), env, seed, config, and further facts.
        spaces: spaces of observations and actions.
        policy: weights and normalisers.
        learner: everything else that training needs.

    Raises:
        TypeError: the header holds something other than plain values; nothing has been written.
        ValueError: another process is training or saving there.
        OSError: the disk is full or not writable; the earlier checkpoint remains.
    """
    described = {"observation_space": space_to_json(spaces[0]), "action_space": space_to_json(spaces[1])}
    text = write_header({**header, **described})
    weights = {f"policy.{name}": x for name, x in policy.items()}
    with lock_or_own(folder):
        saved = max([time.time_ns(), *(read_stamp(folder / name) + 1 for name in (LEARNER, POLICY))])
        files = {LEARNER: _pack({**weights, **learner}, text, saved), **_derive_files(weights, text, saved)}
        remove_leftovers(folder, files)
        write_in_order(folder, files)


def find_folder(path: str | Path) -> Path:
    """The folder saved under `path`; as in stable-baselines3, ".zip" may be part of the name or not.

    Raises:
        ValueError: there is a file instead of a folder.
    """
    path = Path(path)
    if path.is_dir():  # "." has no name to change
        return path
    other = path.with_suffix("") if path.suffix == ".zip" else path.with_name(f"{path.name}.zip")
    file = path if path.is_file() else other
    if not other.is_dir() and file.is_file():
        raise ValueError(
            f"{file}: expected a folder that rlmin saved, found a file; a zip of stable-baselines3's "
            "holds pickles, which rlmin does not read"
        )
    return other if other.is_dir() else path


def read_header(folder: Path, file: str = POLICY) -> dict[str, Any]:
    """The entries of a checkpoint's header, spaces rebuilt; the tensors are checked too.

    Raises:
        ValueError: there is no run, or it is incomplete, of another version, damaged or edited.
    """
    return read(folder, file)[0]


def read(folder: Path, file: str) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of one checkpoint file; see `read_header`."""
    text, tensors = _read_plain(folder, file)
    where = str(Path(folder) / file)
    header = read_header_text(text, where=where)
    mark_header(header, where=where)
    rebuild_spaces(header, elements=sum(x.numel() for x in tensors.values()), where=where)
    return header, tensors


def read_newest(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """As `read`, of the file that was saved last; after a complete save, of the one that holds everything.

    A policy may be the newer file if it was copied there, or if an earlier push left a learner behind. An edited
    config.yaml is a warning.
    """
    file, other = newest(folder)
    if other is not None and read_stamp(folder / other) in (-1, read_stamp(folder / file)):
        _read_plain(folder, other)  # of the same save; or damaged, which reading it reports
    found = read(folder, file)
    warn_of_edits(folder, file)
    return found


def newest(folder: Path) -> tuple[str, str | None]:
    """The checkpoint file saved last, and the other, if it exists. Of two from one save, the learner comes first."""
    there = [name for name in (LEARNER, POLICY) if (folder / name).exists()]
    if len(there) < 2:
        return (there or [POLICY])[0], None
    return (LEARNER, POLICY) if read_stamp(folder / LEARNER) >= read_stamp(folder / POLICY) else (POLICY, LEARNER)


def read_stamp(path: Path) -> int:
    """The time of a save in nanoseconds, which grows with every save in a folder. -1: not readable.

    Older files without such a stamp count by their steps of training, and are older than any file with one.
    """
    if not path.is_file():
        return -1
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        return int(metadata["saved"] if "saved" in metadata else json.loads(metadata["header"])["num_timesteps"])
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return -1


def derive_files(folder: Path) -> dict[str, bytes]:
    """The content of policy.safetensors and config.yaml after the last complete save: its weights and settings.

    Raises:
        ValueError: see `read_header`.
    """
    file, _ = newest(folder)
    text, tensors = _read_plain(folder, file)
    weights, saved = {name: x for name, x in tensors.items() if name.startswith("policy.")}, read_stamp(folder / file)
    read_header_text(text, where=str(Path(folder) / file))  # raises for a damaged one, by its name
    files = _derive_files(weights, text, None if saved < STAMPED else saved)
    if read_stamp(folder / POLICY) == saved:
        files[POLICY] = (folder / POLICY).read_bytes()
    return files


def finish_save(folder: Path) -> None:
    """Write the files that a kill kept the last save from writing; hold the folder first, see `rlmin.files.lock`.

    Raises:
        ValueError: see `read_header`.
    """
    if newest(folder)[0] != LEARNER:
        return
    files, lines = derive_files(folder), _config_lines(folder)
    if read_stamp(folder / POLICY) == read_stamp(folder / LEARNER):
        del files[POLICY]
    if lines and (_is_edited(lines) or lines == files[CONFIG].decode().splitlines()):
        del files[CONFIG]
    write_in_order(folder, files)


def warn_of_edits(folder: Path, file: str) -> None:
    """Warn if config.yaml was edited by hand, which has no effect.

    Its first line has a digest of the rest, which tells an edited file from one older or newer than the weights.
    """
    lines = _config_lines(folder)
    if lines is None or not _is_edited(lines):
        return
    with safe_open(folder / file, framework="pt") as opened:
        wanted = _readable(opened.metadata()["header"]).splitlines()
    rest = lines[1:] if lines and lines[0].startswith(SEAL) else lines  # older files have no digest
    if rest == wanted:
        return
    changed = [line.strip()[:60] for line in rest if line not in wanted][:3] or ["something is missing"]
    warnings.warn(
        f"{folder / CONFIG} was edited after training ({'; '.join(changed)}), which has no effect: the weights belong "
        "to the settings they were trained with. Start a new run with the settings you want",
        stacklevel=3,
    )


def _config_lines(folder: Path) -> list[str] | None:
    """The first lines of config.yaml; None if there is none, as the file is only for people."""
    if not (folder / CONFIG).is_file():
        return None
    try:
        with (folder / CONFIG).open("rb") as config:
            return config.read(LARGEST_CONFIG).decode(errors="replace").splitlines()
    except OSError:
        return None


def _is_edited(lines: list[str]) -> bool:
    return not lines or lines[0] != _seal(lines[1:])


def _read_plain(folder: Path, file: str) -> tuple[str, Tensors]:
    """The text of the header, and the tensors."""
    path = Path(folder) / file
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    if not path.exists():
        raise ValueError(f"{folder}: incomplete run, expected {file} in it; did training stop before its first save?")
    if not path.is_file():  # nobody may ever write to a pipe, or close it
        raise ValueError(f"{path}: damaged, expected a file")
    try:
        with safe_open(path, framework="np") as opened:  # its torch tensors leave 64 bytes each behind for ever
            metadata = dict(opened.metadata() or {})
            tensors = {name: torch.from_numpy(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
            if LOCKS_MAPPED_FILES:
                tensors = {name: x.clone() for name, x in tensors.items()}
    except (SafetensorError, OSError, TypeError) as error:  # a TypeError: of a dtype that numpy does not have
        raise ValueError(f"{path}: damaged, expected a safetensors file ({error})") from None
    found = metadata.get("format")
    if found != FORMAT:
        raise ValueError(f"{path}: expected checkpoint format {FORMAT}, got {found}; another version of rlmin wrote it")
    digest = metadata.pop("digest", "")
    if digest != _digest(tensors, metadata):
        raise ValueError(f"{path}: its content does not match its digest; the file was edited or damaged")
    return metadata.get("header", ""), tensors


def section(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors below `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: x for name, x in tensors.items() if name.startswith(prefix + ".")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The moments and step counters of an optimizer, by position of the parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": x for i, entry in state.items() for name, x in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """The inverse of `optimizer_tensors`; settings such as the learning rate stay the optimizer's own."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        position, name = key.split(".", 1)
        state.setdefault(int(position), {})[name] = x
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _derive_files(weights: Tensors, text: str, saved: int | None) -> dict[str, bytes]:
    body = _readable(text).splitlines()
    return {POLICY: _pack(weights, text, saved), CONFIG: "\n".join([_seal(body), *body, ""]).encode()}


def _readable(text: str) -> str:
    """The part of a header that config.yaml shows."""
    header = read_header_text(text, where="header")
    keys = ("agent", "rlmin", "env", "dataset", "seed", "config", "run")
    return yaml.safe_dump({key: readable(header[key]) for key in keys if key in header}, sort_keys=False)


def _seal(lines: list[str]) -> str:
    """The first line of a config.yaml, given the others."""
    return SEAL + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _pack(tensors: Tensors, header: str, saved: int | None) -> bytes:
    # a copy of each, because safetensors refuses tensors that share memory
    tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
    metadata = {"format": FORMAT, "header": header} | ({} if saved is None else {"saved": str(saved)})
    return save(tensors, metadata | {"digest": _digest(tensors, metadata)})


def _digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    hasher = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name]
        hasher.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        hasher.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return hasher.hexdigest()


if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, derived="derive_files", when="read_stamp")
