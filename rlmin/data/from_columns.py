"""Episodes from columns with one row a step, whatever names the columns have and however they mark the ends.

The first of these that the data have gives the ends of episodes:

    an episode's number in every row, or a flag at every first step
    terminals or timeouts (also: dones, truncated); `dones` without timeouts end an episode and count as terminal
    a limit of steps, `max_episode_steps`, beside terminals
    next_observations that are not the observation of the row below, beside terminals

The state that the last step reached is that of `next_observations`; without these the last observation is repeated.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmin.data.dataset import Episode
from rlmin.settings import Count
from rlmin.settings.boundary import checked

ALIASES = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rews", "rew"),
    "terminals": ("terminals", "terminal", "terminated", "terminations", "dones", "done"),
    "timeouts": ("timeouts", "timeout", "truncated", "truncations"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states", "next_state"),
    "episode": ("episode", "episode_id", "episode_ids", "episode_index", "traj_id", "trajectory"),
    "starts": ("episode_starts", "starts", "is_first"),
}
"""Column -> names that people give it."""


@checked
def episodes_from_columns(
    columns: Mapping[str, Any], *, max_episode_steps: Count | None = None, where: str = "columns"
) -> list[Episode]:
    """Episodes of columns [N, ...].

    Args:
        columns: name -> array, observations also a dict or tuple of such; names may be any in `ALIASES`.
        max_episode_steps: steps after which an episode was cut, where the data do not say.
        where: name of the data in errors.

    Returns:
        whole episodes; rows behind the last end are one that was cut.

    Raises:
        ValueError: no observations or actions, columns of different lengths, or no sign of where episodes end.

    Warns:
        UserWarning: there are no rewards, so they are 0.
    """
    found = _rename(columns, where)
    N = _size(found, where)
    for name in ("rewards", "terminals", "timeouts", "starts", "episode"):
        if name in found:
            found[name] = np.asarray(found[name]).reshape(N, -1)[:, 0]
    if "rewards" not in found:
        warnings.warn(f"{where}: no rewards, so they are 0; clone actions by condition='none'", stacklevel=2)
        found["rewards"] = np.zeros(N)
    actions = np.asarray(found["actions"])
    if actions.dtype.kind in "iu" and actions.shape == (N, 1):
        actions = actions[:, 0]
    ends, terminated = _ends(found, N, max_episode_steps, where)
    episodes, first = list[Episode](), 0
    for last in ends:
        own = slice(first, last + 1)
        final = found.get("next_observations", found["observations"])
        episodes.append(
            Episode(
                observations=_join(_cut(found["observations"], own), _cut(final, slice(last, last + 1))),
                actions=actions[own],
                rewards=found["rewards"][own],
                terminated=bool(terminated[last]),
            )
        )
        first = last + 1
    return episodes


def _rename(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The columns under rlmin's names for them."""
    found: dict[str, Any] = {}
    for name, aliases in ALIASES.items():
        given = next((alias for alias in aliases if alias in columns), None)
        if given is not None:
            found[name] = columns[given]
    missing = [name for name in ("observations", "actions") if name not in found]
    if missing:
        names = ", ".join(ALIASES[missing[0]])
        raise ValueError(f"{where}: no {missing[0]} (any of {names}); found {', '.join(map(str, columns))}")
    return found


def _size(found: Mapping[str, Any], where: str) -> int:
    """N, on which all columns agree."""
    N = len(found["actions"])
    for name, column in found.items():
        for leaf in _leaves(column):
            if np.ndim(leaf) == 0 or len(leaf) != N:
                got = "a number" if np.ndim(leaf) == 0 else str(len(leaf))
                raise ValueError(f"{where}: expected {N} {name}, as there are {N} actions, got {got}")
    if N == 0:
        raise ValueError(f"{where}: expected at least one step, got none")
    return N


def _ends(
    found: Mapping[str, Any], N: int, limit: int | None, where: str
) -> tuple[list[int], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Last rows of all episodes, and [N] whether a row's step ended in a terminal state."""
    no = np.zeros(N, dtype=bool)
    timeouts = found["timeouts"].astype(bool) if "timeouts" in found else no
    terminated = (found["terminals"].astype(bool) if "terminals" in found else no) & ~timeouts
    if "episode" in found:
        ends = np.append(found["episode"][1:] != found["episode"][:-1], True)
    elif "starts" in found:
        ends = np.append(found["starts"][1:].astype(bool), True)
    else:
        ends = terminated | timeouts
        if "timeouts" not in found and limit is not None:
            ends = _limit(ends, limit)
        elif "timeouts" not in found and "next_observations" in found:
            ends = ends | _jumps(found["observations"], found["next_observations"])
        elif "terminals" not in found and "timeouts" not in found:
            signs = "episode, episode_starts, terminals, timeouts or next_observations"
            raise ValueError(f"{where}: nothing says where episodes end: expected {signs}, or max_episode_steps=")
        ends[-1] = True
    return np.flatnonzero(ends).tolist(), terminated


def _limit(ends: np.ndarray[Any, Any], limit: int) -> np.ndarray[Any, Any]:
    """The ends and, as d4rl's own loader has it, those after `limit` steps of an episode."""
    cut, step = ends.copy(), 0
    for t, over in enumerate(ends):
        step += 1
        if over or step == limit:
            cut[t], step = True, 0
    return cut


def _jumps(observations: Any, following: Any) -> np.ndarray[Any, Any]:
    """[N] whether a row reached another state than the one with which the row below begins."""
    jumps = np.zeros(len(_leaves(observations)[0]), dtype=bool)
    for seen, reached in zip(_leaves(observations), _leaves(following), strict=True):
        rows = len(seen)
        jumps[:-1] |= (np.asarray(seen)[1:] != np.asarray(reached)[:-1]).reshape(rows - 1, -1).any(1)
    return jumps


def _leaves(x: Any) -> list[Any]:
    """The arrays in nested dicts and tuples."""
    if isinstance(x, Mapping):
        return [leaf for part in x.values() for leaf in _leaves(part)]
    return [leaf for part in x for leaf in _leaves(part)] if isinstance(x, tuple) else [x]


def _cut(x: Any, rows: slice) -> Any:
    if isinstance(x, Mapping):
        return {name: _cut(part, rows) for name, part in x.items()}
    return tuple(_cut(part, rows) for part in x) if isinstance(x, tuple) else np.asarray(x)[rows]


def _join(x: Any, last: Any) -> Any:
    if isinstance(x, Mapping):
        return {name: _join(part, last[name]) for name, part in x.items()}
    if isinstance(x, tuple):
        return tuple(_join(part, end) for part, end in zip(x, last, strict=True))
    return np.concatenate([x, last])
