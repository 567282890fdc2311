"""Storage of the columns of a Dataset: in memory, or memory-mapped in a folder that is found again.

    <cache>/<name>-<digest>/step, /episode      tensordict folders; [N] steps, [E] final observations, lengths, endings
    <cache>/<name>-<digest>/dataset.json        written last: the digest in full and the size of every file

The digest covers the source, its spaces and this format, so a changed source makes a new folder. A folder appears
whole or not at all: it is written under another name and renamed.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import torch
from tensordict import TensorDict

from rlmin.data.convert import Converter
from rlmin.data.dataset import Dataset
from rlmin.data.source import Source
from rlmin.data.tables import IN_MEMORY, Columns, allocate, cache_folder, open_table, row_bytes, temporary_folder
from rlmin.files.read_json import read_json
from rlmin.runs.checkpoint import write_atomic
from rlmin.spaces.as_json import space_to_json

FORMAT = 1
MANY = 10_000
"""Episodes above which a slow source is memory-mapped, too: reading them takes half a minute."""

STEP, EPISODE, INFO = "step", "episode", "dataset.json"


def build(source: Source, cache: str | Path | bool | None = None) -> Dataset:
    """Read a source.

    Args:
        source: read block by block.
        cache: False: into memory. True: memory-mapped in `cache_folder()`; a path: memory-mapped there. None: in
            memory up to 1 GiB, and of a source that is slow to read up to 10,000 episodes.

    Raises:
        ValueError: the content is invalid, or the disk is too full; nothing is left behind.
    """
    converter = Converter(source)
    steps, episodes = _columns(converter)
    size = source.num_steps * row_bytes(steps)
    large = size > IN_MEMORY or (source.slow and source.num_episodes > MANY)
    if cache is False or (cache is None and not large):
        step, episode = allocate(steps, source.num_steps), allocate(episodes, source.num_episodes)
        _fill(converter, step, episode)
        return _dataset(source, step, episode)
    root = Path(cache).expanduser() if isinstance(cache, str | Path) else cache_folder()
    digest = _digest(source)
    folder = root / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', source.name).strip('.-')}-{digest[:16]}"
    if not _is_whole(folder, digest):
        _convert(converter, folder, digest)
    return _dataset(source, open_table(folder / STEP), open_table(folder / EPISODE))


def _columns(converter: Converter) -> tuple[Columns, Columns]:
    """Columns of a step and of an episode."""
    head = converter.head
    observation: Columns = {("observation", leaf.name): (leaf.shape, leaf.dtype) for leaf in converter.leaves}
    steps: Columns = {("action",): (head.event_shape, head.dtype), ("reward",): ((), torch.float32)}
    episodes: Columns = {("length",): ((), torch.int64), ("terminated",): ((), torch.bool)}
    return {**observation, **steps}, {**observation, **episodes}


def _fill(converter: Converter, step: TensorDict, episode: TensorDict) -> None:
    """Write every block to its rows."""
    source, n, e = converter.source, 0, 0
    for block in converter.source.blocks():
        columns = converter.columns(block)
        steps, ended = slice(n, n + len(block.reward)), slice(e, e + len(block.length))
        n, e = steps.stop, ended.stop
        if n > source.num_steps or e > source.num_episodes:
            break
        step["action"][steps], step["reward"][steps] = columns.action, columns.reward
        episode["length"][ended] = torch.from_numpy(block.length)
        episode["terminated"][ended] = torch.from_numpy(block.terminated)
        for name, x in columns.observation.items():
            step["observation", name][steps] = x
            episode["observation", name][ended] = columns.final[name]
    if (n, e) != (source.num_steps, source.num_episodes):
        stated = f"{source.num_steps} steps in {source.num_episodes} episodes"
        raise ValueError(f"dataset {source.name!r}: expected {stated} by its own metadata, found {n} in {e} or more")
    converter.finish()


def _convert(converter: Converter, folder: Path, digest: str) -> None:
    """Write the folder of a memory-mapped dataset under another name, then rename it."""
    source, temporary = converter.source, temporary_folder(folder.parent)
    try:
        steps, episodes = _columns(converter)
        step = allocate(steps, source.num_steps, temporary / STEP)
        episode = allocate(episodes, source.num_episodes, temporary / EPISODE)
        _fill(converter, step, episode)
        del step, episode
        write_atomic(temporary / INFO, json.dumps({"digest": digest, "files": _sizes(temporary)}).encode())
        if folder.exists():  # a damaged one
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not _is_whole(folder, digest):  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        stated, files = read_json(folder / INFO), _sizes(folder)
        tensors = all(name.endswith((".memmap", ".json")) for name in files)  # tensordict would unpickle others
        return bool(tensors and stated == {"digest": digest, "files": files})
    except (OSError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != INFO)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _digest(source: Source) -> str:
    spaces = [space_to_json(source.observation_space), space_to_json(source.action_space)]
    stated = json.dumps([FORMAT, source.name, spaces, source.fingerprint()])
    return hashlib.sha256(stated.encode()).hexdigest()


def _dataset(source: Source, step: TensorDict, episode: TensorDict) -> Dataset:
    return Dataset(
        step=step,
        final=episode.select("observation"),
        first=torch.cat([torch.zeros(1, dtype=torch.int64), episode["length"].cumsum(0)]),
        terminated=torch.as_tensor(episode["terminated"]),
        observation_space=source.observation_space,
        action_space=source.action_space,
        name=source.name,
        env=source.env,
        reference=source.reference,
        recipe=source.recipe,
    )
