"""Episodes from files of other libraries: .npz, tables, d3rlpy's dumps and robomimic's HDF5. Nothing in them is run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.checks import require
from rlmin.data.arrow_files import check_parquet_file
from rlmin.data.dataset import Episode
from rlmin.data.from_columns import ALIASES, episodes_from_columns
from rlmin.data.written import check_all_written, check_links, read_npz
from rlmin.settings import Count, CountOrZero, check_setting
from rlmin.settings.boundary import checked

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".joblib"}
TABLES = {".parquet": "read_parquet", ".csv": "read_csv"}
LIMITS = {
    r"(hopper|halfcheetah|walker2d|ant)-": 1000,
    r"antmaze-umaze": 700,
    r"antmaze-": 1000,
    r"maze2d-umaze": 300,
    r"maze2d-medium": 600,
    r"maze2d-large": 800,
    r"pen-": 100,
    r"(hammer|door|relocate)-": 200,
    r"kitchen-": 280,
}
"""Steps after which D4RL's tasks cut an episode, by the names of their files, as in D4RL's own loader."""

HINT = (
    "such a file runs code when it is read, so rlmin does not: read it yourself if you trust it, and give rlmin what "
    "is in it by rlmin.data.episodes_from_trajectories, episodes_from_buffer or episodes_from_columns"
)


def read_episodes(path: Path) -> list[Episode] | None:
    """Episodes of a file of another library; None where it is none of these, as a D4RL file.

    Raises:
        ValueError: it is damaged or lacks a column; or it is a pickle, which is never read.
    """
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise ValueError(f"dataset {path.stem!r}: {path} is a pickle; {HINT}")
    if suffix == ".npz":
        return episodes_from_npz(path)
    if suffix in TABLES:
        return episodes_from_table(path)
    if suffix not in (".hdf5", ".h5") or not path.is_file():
        return None
    h5py = require("h5py", extra="offline")
    try:
        with h5py.File(path, "r") as file:
            return _read_hdf5(file, path)
    except (OSError, RuntimeError, KeyError):
        return None  # damaged: the reader of D4RL files says how
    except (TypeError, AttributeError, IndexError, AssertionError) as error:  # a group for a column, or none of either
        why = f"expected columns of numbers as this layout has them ({error!s:.200})"
        raise ValueError(f"dataset {path.stem!r}: {path}: {why}") from None


def _read_hdf5(file: Any, path: Path) -> list[Episode] | None:
    """Episodes of any layout but that of D4RL, whose own reader takes a part of the file at a time."""
    where = f"dataset {path.stem!r}"
    is_robomimic = "data" in file and hasattr(file["data"], "keys")
    if not is_robomimic and "num_episodes" not in file and ("timeouts" in file or "terminals" not in file):
        return None
    check_all_written(file, where)
    check_links(file, where)
    if is_robomimic:
        return _robomimic(file["data"], where)
    return _d3rlpy(file, where) if "num_episodes" in file else _without_timeouts(file, path.stem, where)


@checked
def episodes_from_npz(path: str | Path, *, max_episode_steps: Count | None = None) -> list[Episode]:
    """Episodes of a .npz file of columns: see `episodes_from_columns`.

    Args:
        path: of numpy's `savez`; arrays of objects, which are pickles, are refused.
        max_episode_steps: steps after which an episode was cut, where the file does not say.

    Raises:
        ValueError: no such file, it is damaged, or see `episodes_from_columns`.
    """
    path = Path(path)
    where = f"dataset {path.stem!r}"
    try:
        columns = read_npz(path)
    except FileNotFoundError:
        raise ValueError(f"{where}: {path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return episodes_from_columns(columns, max_episode_steps=max_episode_steps, where=where)


@checked
def episodes_from_table(
    table: Any,
    *,
    observations: Sequence[str] = (),
    actions: Sequence[str] = (),
    max_episode_steps: Count | None = None,
) -> list[Episode]:
    """Episodes of a pandas DataFrame, or of a .parquet or .csv file, with one row a step.

    Args:
        table: the frame or the path; a column "episode" (or another sign, see `episodes_from_columns`) says which
            episode a row belongs to, "reward" what it earned.
        observations: columns that are an observation's entries; none: those that begin with "obs".
        actions: columns that are an action's entries; none: those that begin with "act".
        max_episode_steps: steps after which an episode was cut, where the table does not say.

    Raises:
        ImportError: pandas is not installed.
        ValueError: columns are missing or hold something else than numbers, or see `episodes_from_columns`.
    """
    where = "table"
    if isinstance(table, str | Path):
        where = f"dataset {Path(table).stem!r}"
        if Path(table).suffix.lower() not in TABLES or not Path(table).is_file():
            raise ValueError(f"table: expected a file that ends in {' or '.join(TABLES)}, got {str(table)!r:.200}")
        table = _read_table(Path(table), where)
    if not hasattr(table, "columns"):
        raise ValueError(f"table: expected a DataFrame or the path of a file, got {type(table).__name__}")
    names = list(map(str, table.columns))
    columns: dict[str, Any] = {}
    for kind, wanted in (("observations", observations), ("actions", actions)):
        chosen = list(wanted) or [name for name in names if name.lower().startswith(kind[:3]) and "next" not in name]
        missing = [name for name in chosen if name not in names]
        if missing or not chosen:
            begins = f"no column begins with {kind[:3]!r}: name them by {kind}="
            reason = f"no column {missing[0]!r}" if missing else begins
            raise ValueError(f"{where}: {reason}; found {', '.join(names)}")
        columns[kind] = _matrix(table, chosen, where)
    for kind in ("rewards", "terminals", "timeouts", "episode", "starts"):
        found = next((alias for alias in ALIASES[kind] if alias in names), None)
        if found is not None:
            columns[kind] = table[found].to_numpy()
    return episodes_from_columns(columns, max_episode_steps=max_episode_steps, where=where)


def _read_table(path: Path, where: str) -> Any:
    """The frame in a file; of a .parquet file, whose rows may be few bytes, the size is checked first."""
    read = getattr(require("pandas", extra="tables"), TABLES[path.suffix.lower()])
    try:
        if path.suffix.lower() == ".parquet":
            check_parquet_file(path, str(path))
        return read(path)
    except ImportError:
        raise
    except Exception as error:  # pandas and pyarrow raise errors of many classes
        words = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise ValueError(f"{where}: {path} cannot be read as a table ({words:.300})") from None


def _matrix(table: Any, names: list[str], where: str) -> np.ndarray[Any, Any]:
    """Columns beside each other; a single one that holds lists is the matrix itself."""
    if len(names) > 1:
        matrix: np.ndarray[Any, Any] = table[names].to_numpy()
    else:
        column = table[names[0]].to_numpy()
        matrix = np.stack([np.asarray(x) for x in column]) if column.dtype == object else column
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{where}: {names[0]}: expected numbers, got {matrix.dtype}")
    return matrix


def _d3rlpy(file: Any, where: str) -> list[Episode]:
    """What d3rlpy's `ReplayBuffer.dump` wrote: columns NAME_EPISODE, and NAME_EPISODE_PART of tuples."""
    episodes = list[Episode]()
    for i in range(check_setting(f"{where}: num_episodes", file["num_episodes"][()], CountOrZero)):
        missing = [name for name in ("actions", "rewards", "terminated") if f"{name}_{i}" not in file]
        if missing:
            raise ValueError(f"{where}: no {missing[0]}_{i}")
        columns: dict[str, Any] = {name: file[f"{name}_{i}"][()] for name in ("actions", "rewards")}
        parts = [name for name in file if name.startswith(f"observations_{i}_")]
        many = tuple(file[f"observations_{i}_{j}"][()] for j in range(len(parts)))
        columns["observations"] = many if parts else file[f"observations_{i}"][()]
        L = len(columns["actions"])
        columns["terminals"] = np.arange(L) == (L - 1 if bool(file[f"terminated_{i}"][()]) else L)
        episodes += episodes_from_columns(columns | {"episode": np.zeros(L)}, where=f"{where}: episode {i}")
    return episodes


def _robomimic(data: Any, where: str) -> list[Episode]:
    """Robomimic's layout: /data/demo_I with actions, maybe rewards and dones, and groups obs and next_obs of arrays."""
    episodes = list[Episode]()
    for name in sorted(data, key=lambda one: (len(one), one)):
        demo = data[name]
        if "obs" not in demo or "actions" not in demo:
            hint = "robomimic's dataset_states_to_obs.py adds obs"
            raise ValueError(f"{where}: {name}: expected actions and obs; {hint}")
        columns: dict[str, Any] = {key: demo[key][()] for key in ("actions", "rewards", "dones") if key in demo}
        for key, of in (("observations", "obs"), ("next_observations", "next_obs")):
            columns |= {key: _arrays(demo[of])} if of in demo else {}
        columns["episode"] = np.zeros(len(columns["actions"]))
        episodes += episodes_from_columns(columns, where=f"{where}: {name}")
    return episodes


def _without_timeouts(file: Any, name: str, where: str) -> list[Episode]:
    """A D4RL file without timeouts: the task's limit gives the ends, or d3rlpy's own flag, or the following states."""
    names = ("observations", "actions", "rewards", "terminals", "next_observations")
    columns = {key: file[key][()] for key in names if key in file}
    if "episode_terminals" in file:  # of d3rlpy before version 2
        columns["timeouts"] = (file["episode_terminals"][()] != 0) & (columns["terminals"] == 0)
    limit = next((steps for pattern, steps in LIMITS.items() if re.match(pattern, name)), None)
    if limit is None and not {"timeouts", "next_observations"} & set(columns):
        hint = "without them nobody knows where an episode was cut: rlmin.data.episodes_from_columns(..., "
        raise ValueError(f"{where}: no timeouts and no next_observations; {hint}max_episode_steps=...)")
    return episodes_from_columns(columns, max_episode_steps=limit, where=where)


def _arrays(group: Any) -> Mapping[str, Any]:
    return {name: group[name][()] for name in group}
