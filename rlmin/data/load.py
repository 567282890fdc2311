"""load_dataset: logged episodes in any supported form -> Dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym

from rlmin.data.d4rl import open_d4rl
from rlmin.data.dataset import Dataset, Episode
from rlmin.data.episodes import open_episodes
from rlmin.data.from_files import read_episodes
from rlmin.data.minari import open_minari
from rlmin.data.reference import reference_in
from rlmin.data.sieve import sieve
from rlmin.data.skipped import Skipped
from rlmin.data.source import Source
from rlmin.data.store import build
from rlmin.vector.make import make_vec

if TYPE_CHECKING:
    from minari import MinariDataset

HDF5 = {".hdf5", ".h5"}

Space: TypeAlias = gym.Space[Any] | None


def load_dataset(
    source: "Dataset | MinariDataset | str | Path | Sequence[Episode]",
    *,
    cache: str | Path | bool | None = None,
    env: str | Mapping[str, Any] | None = None,
    observation_space: Space = None,
    action_space: Space = None,
    trust: bool = False,
    skip_bad_episodes: bool = False,
) -> Dataset:
    """Logged episodes as a Dataset, every value checked.

    Args:
        source: the id of a Minari dataset (downloaded if it is not here), a MinariDataset, the path of a D4RL file
            (.hdf5 or .h5) or of a file that `rlmin.data.from_files` reads, episodes in memory, or a Dataset, which is
            returned unchanged.
        cache: place of the tensors. None: in memory up to 1 GiB (for Minari: and 10,000 episodes), else memory-mapped
            in the cache folder, which RLMIN_CACHE can name; False: in memory; True or a path: memory-mapped, in
            that folder.
        env: id of the environment, or {"id", "kwargs"}, if the source does not name it; it also provides the spaces.
        observation_space, action_space: for episodes and D4RL files, which have none; without these and `env`
            they are derived from the values (`rlmin.data.space_of`).
        trust: whether a Minari dataset may import the modules that its metadata name: see `rlmin.files.trust`.
        skip_bad_episodes: whether an episode with a fault is left out, with a warning that says which and why.

    Raises:
        ValueError: it does not exist, is damaged or empty, or has a value that is not finite or not in its space;
            the message names episode and step.
        TypeError: a source of another kind.
        ImportError: the extra "offline" is not installed and the source needs it.

    Warns:
        UserWarning: actions lie outside the bounds of their Box, float32 cannot tell values of a column apart, or bad
            episodes were left out.
    """
    described = None if env is None else _as_mapping(env)
    if isinstance(source, Dataset):
        given = {"cache": cache, "observation_space": observation_space, "action_space": action_space}
        wrong = [name for name, x in given.items() if x is not None]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: a Dataset has its own; leave them out")
        return source if described is None else replace(source, env=described)
    spaces = {"observation_space": observation_space, "action_space": action_space}
    dataset = build(
        open_source(source, env=described, trust=trust, skip_bad_episodes=skip_bad_episodes, **spaces), cache
    )
    if described is None:
        return dataset
    known = reference_in(described["id"], described["kwargs"])
    return replace(dataset, env=described, reference=known or dataset.reference)


def open_source(
    source: Any,
    *,
    env: Mapping[str, Any] | None = None,
    observation_space: Space = None,
    action_space: Space = None,
    trust: bool = False,
    skip_bad_episodes: bool = False,
) -> Source:
    """A way to read logged episodes in any form but a Dataset; see `load_dataset` for arguments and errors."""
    skipped = Skipped() if skip_bad_episodes else None
    found = _open(source, env, observation_space, action_space, trust, skipped)
    return found if skipped is None else sieve(found, skipped)


def _open(
    source: Any,
    env: Mapping[str, Any] | None,
    observation_space: Space,
    action_space: Space,
    trust: bool,
    skipped: Skipped | None,
) -> Source:
    read = read_episodes(Path(source)) if isinstance(source, str | Path) else None
    if read is not None:
        observation_space, action_space = _spaces(env, observation_space, action_space)
        spaces = {"observation_space": observation_space, "action_space": action_space}
        return open_episodes(read, name=Path(source).stem, skipped=skipped, **spaces)
    if isinstance(source, str | Path) and Path(source).suffix.lower() in HDF5:
        observation_space, action_space = _spaces(env, observation_space, action_space)
        return open_d4rl(Path(source), observation_space=observation_space, action_space=action_space)
    if isinstance(source, str) or hasattr(source, "iterate_episodes"):
        if observation_space is not None or action_space is not None:
            raise ValueError("observation_space, action_space: a Minari dataset has its own; leave them out")
        return open_minari(source, trust=trust, skipped=skipped)
    if isinstance(source, Path):
        raise ValueError(f"{source}: expected a D4RL file, .hdf5 or .h5; a Minari dataset is loaded by its id")
    if not isinstance(source, Sequence):
        kind = type(source).__name__
        maker = (
            "episodes_from_columns" if isinstance(source, Mapping) else "episodes_from_trajectories, _buffer or _table"
        )
        hint = f"rlmin.data.{maker} makes episodes of other libraries' data"
        raise TypeError(f"dataset: expected an id, a path, a MinariDataset or a list of Episode, got {kind}; {hint}")
    observation_space, action_space = _spaces(env, observation_space, action_space)
    spaces = {"observation_space": observation_space, "action_space": action_space}
    return open_episodes(source, name="episodes", skipped=skipped, **spaces)


def _spaces(env: Mapping[str, Any] | None, observation: Space, action: Space) -> tuple[Space, Space]:
    """Spaces that are not given, from the environment if there is one."""
    if env is None or (observation is not None and action is not None):
        return observation, action
    made = make_vec(env["id"], 1, **env["kwargs"])
    found = observation or made.single_observation_space, action or made.single_action_space
    made.close()
    return found


def _as_mapping(env: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(env, str):
        return {"id": env, "kwargs": {}, "workers": 0}
    if not isinstance(env, Mapping) or "id" not in env:
        raise ValueError(f"env: expected an id or {{'id': ..., 'kwargs': ...}}, got {env!r:.60}")
    return {"id": env["id"], "kwargs": dict(env.get("kwargs", {})), "workers": 0}
