"""Checkpoints: a folder of plain files, each written whole or not at all, none of which can execute code.

    config.yaml           the resolved settings, to read
    policy.safetensors    weights and normalisers; its header holds config, spaces and counters: enough to act
    learner.safetensors   all of that again, with optimizer, random numbers, memory, environment state: enough to go on

Each of the two tensor files is complete in itself, so a run that is killed between writing one and the other loses
nothing. A digest in the header covers every tensor and every other header entry: an edited file is refused.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlmin.read_yaml import read_yaml
from rlmin.space_json import space_from_json, space_to_json
from rlmin.trust import mark_header

FORMAT = "1"
CONFIG, POLICY, LEARNER = "config.yaml", "policy.safetensors", "learner.safetensors"

Tensors = dict[str, Tensor]


def write(
    folder: Path,
    header: Mapping[str, Any],
    spaces: tuple[gym.Space[Any], gym.Space[Any]],
    policy: Mapping[str, Tensor],
    learner: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint to `folder`, which is created where it does not exist.

    Args:
        folder: of the run.
        header: plain values: agent, rlmin (its version), env, seed, config, and whatever else there is to say.
        spaces: of observations and actions.
        policy: weights and normalisers.
        learner: everything else that training needs.

    Raises:
        TypeError: the header holds something else than plain values; nothing has been written.
    """
    described = {"observation_space": space_to_json(spaces[0]), "action_space": space_to_json(spaces[1])}
    text = json.dumps({**header, **described})
    weights = {f"policy.{name}": x for name, x in policy.items()}
    files = {  # all are packed before the first is written
        CONFIG: yaml.safe_dump(_readable(json.loads(text)), sort_keys=False).encode(),
        LEARNER: _pack({**weights, **learner}, text),
        POLICY: _pack(weights, text),
    }
    for name, content in files.items():
        write_atomic(folder / name, content)


def read_header(folder: Path, file: str = POLICY) -> dict[str, Any]:
    """What the header of a checkpoint says, spaces rebuilt; the tensors are checked too.

    Raises:
        ValueError: no run is there, or it is incomplete, of another version, damaged or edited.
    """
    return read(folder, file)[0]


def read(folder: Path, file: str) -> tuple[dict[str, Any], Tensors]:
    """Header and tensors of one checkpoint file; see `read_header`."""
    path = Path(folder) / file
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    if not path.exists():
        raise ValueError(f"{folder}: incomplete run, expected {file} in it; did training stop before its first save?")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged, expected a safetensors file ({error})") from None
    found = metadata.get("format")
    if found != FORMAT:
        raise ValueError(f"{path}: expected checkpoint format {FORMAT}, got {found}; another version of rlmin wrote it")
    digest = metadata.pop("digest", "")
    if digest != _digest(tensors, metadata):
        raise ValueError(f"{path}: its content does not match its digest; the file was edited or damaged")
    header = json.loads(metadata["header"])
    _check_config(Path(folder), header)
    mark_header(header, where=str(path))
    for key in ("observation_space", "action_space"):
        header[key] = space_from_json(header[key])
    return header, tensors


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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file, and its folder, that is seen either whole or not at all: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _readable(header: dict[str, Any]) -> dict[str, Any]:
    """The part of a header that stands in config.yaml."""
    return {key: header[key] for key in ("agent", "rlmin", "env", "dataset", "seed", "config", "run") if key in header}


def _check_config(folder: Path, header: dict[str, Any]) -> None:
    path = folder / CONFIG
    if not path.exists():
        raise ValueError(f"{folder}: incomplete run, expected {CONFIG} in it")
    found = read_yaml(path)
    wanted = _readable(header)
    if found != wanted:
        differ = "; ".join(_differences(wanted, found)) or "a key was added"
        raise ValueError(
            f"{path} was edited after training ({differ}); the weights belong to the settings they were trained with. "
            "Start a new run with the settings you want"
        )


def _differences(wanted: Any, found: Any, name: str = "") -> Iterator[str]:
    """What an edited file says, against what it should: "config.gamma: expected 0.99, found 0.5"."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        if wanted != found:
            yield f"{name or 'content'}: expected {wanted}, found {found}"
        return
    for key, value in wanted.items():
        yield from _differences(value, found.get(key), f"{name}.{key}".lstrip("."))


def _pack(tensors: Tensors, header: str) -> bytes:
    # a copy of each, because safetensors refuses tensors that share memory
    tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
    metadata = {"format": FORMAT, "header": header}
    return save(tensors, metadata | {"digest": _digest(tensors, metadata)})


def _digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    hasher = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name]
        hasher.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        hasher.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return hasher.hexdigest()
