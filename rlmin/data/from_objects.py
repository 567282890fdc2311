"""Episodes from objects of other libraries: stable-baselines3's buffers, and lists of trajectories."""

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlmin.data.dataset import Episode
from rlmin.data.from_columns import ALIASES, episodes_from_columns
from rlmin.settings.boundary import checked


@checked
def episodes_from_buffer(buffer: Any, *, scaled: bool | None = None) -> list[Episode]:
    """Episodes of a replay or rollout buffer of stable-baselines3, those of each environment in their order.

    Args:
        buffer: ReplayBuffer, DictReplayBuffer, RolloutBuffer or DictRolloutBuffer (of sb3-contrib's recurrent ones
            too). A rollout does not say whether an episode terminated or was cut, so it counts as terminated.
        scaled: whether actions of a Box are kept in [-1, 1], as SAC, TD3 and DDPG do; None: they are in a replay
            buffer, and not in a rollout.

    Raises:
        ValueError: it is no buffer, empty, or a rollout whose rows have been shuffled for training.
    """
    if not all(hasattr(buffer, name) for name in ("observations", "actions", "rewards", "pos", "n_envs")):
        raise ValueError(f"buffer: expected a replay or rollout buffer, got {type(buffer).__name__}")
    is_rollout = hasattr(buffer, "episode_starts")
    if getattr(buffer, "generator_ready", False):
        raise ValueError("buffer: its rows were shuffled for training; convert it in a callback's on_rollout_end")
    size = len(buffer.observations) if not isinstance(buffer.observations, dict) else buffer.buffer_size
    order = np.arange(buffer.pos) if not buffer.full else np.roll(np.arange(size), 0 if is_rollout else -buffer.pos)
    if not len(order):
        raise ValueError("buffer: expected at least one step, got none")
    space, in_unit = buffer.action_space, not is_rollout if scaled is None else scaled
    episodes = list[Episode]()
    for row in range(buffer.n_envs):
        actions = buffer.actions[order, row]
        if isinstance(space, gym.spaces.Box):
            actions = space.low + 0.5 * (actions + 1) * (space.high - space.low) if in_unit else actions
        else:
            actions = actions.reshape(len(order), *space.shape).astype(np.int64)
        columns = {"observations": _rows(buffer.observations, order, row), "actions": actions}
        columns["rewards"] = buffer.rewards[order, row]
        columns |= _rollout_ends(buffer, order, row) if is_rollout else _replay_ends(buffer, order, row)
        episodes += episodes_from_columns(columns, where="buffer")
    return episodes


@checked
def episodes_from_trajectories(trajectories: Iterable[Any]) -> list[Episode]:
    """Episodes of a list of trajectories: of the `imitation` library, or dicts of arrays as D4RL's loaders give.

    Args:
        trajectories: each has observations and actions (maybe rewards, terminals), as attributes or as entries, under
            any of the names in `rlmin.data.from_columns.ALIASES`. Observations may be one more than actions: then the
            last is the state reached.

    Raises:
        ValueError: a trajectory lacks something, or its parts have different lengths.
    """
    return [_trajectory(one, f"trajectory {i}") for i, one in enumerate(trajectories)]


def _trajectory(one: Any, where: str) -> Episode:
    entries = one if isinstance(one, Mapping) else {n: getattr(one, n) for n in _NAMES if hasattr(one, n)}
    columns = {name: x for name, x in entries.items() if name in _NAMES and x is not None}
    flag = next((name for name in ALIASES["terminals"] if name in columns and np.ndim(columns[name]) == 0), None)
    terminated = None if flag is None else bool(columns.pop(flag))
    seen = next((name for name in ALIASES["observations"] if name in columns), None)
    taken = next((name for name in ALIASES["actions"] if name in columns), None)
    if seen is not None and taken is not None and not isinstance(columns[seen], Mapping | tuple):
        x = np.asarray(columns[seen])
        if len(x) == len(columns[taken]) + 1:
            columns |= {seen: x[:-1], "next_observations": x[1:]}
    columns["episode"] = np.zeros(len(columns[taken])) if taken is not None else []
    (episode,) = episodes_from_columns(columns, where=where)
    if terminated is None:
        return episode
    return Episode(episode.observations, episode.actions, episode.rewards, terminated)


_NAMES = {alias for kind, names in ALIASES.items() if kind not in ("episode", "starts") for alias in names}


def _rows(x: Any, order: np.ndarray[Any, Any], row: int) -> Any:
    if isinstance(x, Mapping):
        return {name: _rows(part, order, row) for name, part in x.items()}
    return x[order, row]


def _replay_ends(buffer: Any, order: np.ndarray[Any, Any], row: int) -> dict[str, Any]:
    """Ends and following states of a replay buffer; one that saves memory keeps these as the next observations."""
    ends = {"dones": buffer.dones[order, row], "timeouts": buffer.timeouts[order, row]}
    if getattr(buffer, "optimize_memory_usage", False):
        return ends
    return ends | {"next_observations": _rows(buffer.next_observations, order, row)}


def _rollout_ends(buffer: Any, order: np.ndarray[Any, Any], row: int) -> dict[str, Any]:
    starts = buffer.episode_starts[order, row].astype(bool)
    return {"episode_starts": starts, "dones": np.append(starts[1:], False)}
