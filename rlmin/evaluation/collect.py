"""Collecting: policies play, and their episodes become a Minari dataset.

A dataset can have several sources, one after the other, and every episode names its own: successive
checkpoints give what the literature calls medium-replay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlmin import __version__
from rlmin.data import Reference
from rlmin.data.recorder import Recorded, Recorder
from rlmin.data.writer import DatasetWriter
from rlmin.evaluation.evaluate import evaluate_random
from rlmin.evaluation.play import LONGEST, Actor, PolicyActor, RandomActor, play
from rlmin.policy import Policy
from rlmin.policy.fit import check_spaces, is_conditioned
from rlmin.settings import Count, CountOrZero, Seed, Size
from rlmin.settings.boundary import checked
from rlmin.vector import Vector, adapt
from rlmin.wrappers.return_to_go import VectorReturnToGo

if TYPE_CHECKING:
    from minari import MinariDataset


@dataclass(frozen=True, kw_only=True)
class PlayedBy:
    """A source of a dataset: the player of some of its episodes."""

    name: str  # in the dataset's metadata
    policy: Policy | None  # None: every legal action with equal chance
    episodes: int
    deterministic: bool = True  # the most likely action instead of a sample
    target: float | None = None  # target of a return-conditioned policy, env units
    return_scale: float = 1.0  # env units that this policy sees as 1
    details: dict[str, Any] = field(default_factory=dict)  # run, steps, ...: plain values for the recipe

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"{self.name}: episodes: expected at least 1, got {self.episodes}")
        if self.policy is not None and is_conditioned(self.policy) != (self.target is not None):
            needs = "is return-conditioned: set target" if self.target is None else "takes no target return"
            raise ValueError(f"{self.name}: this policy {needs}")

    def around(self, env: VectorEnv[Any, Any, Any], device: Any) -> Vector:
        """The environments as the policy sees them.

        Raises:
            ValueError: the spaces differ from the policy's.
        """
        seen = env if self.target is None else VectorReturnToGo(env, self.target, scale=self.return_scale)
        vector = adapt(seen, device=device)
        if self.policy is not None:
            try:
                check_spaces(self.policy, vector)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        return vector

    def actor(self, vector: Vector, seed: int) -> Actor:
        """The actor that chooses the actions in `vector`."""
        if self.policy is None:
            return RandomActor(vector.action_space, vector.num_envs, seed=seed)
        return PolicyActor(self.policy, vector.num_envs, deterministic=self.deterministic, seed=seed)


@checked
def collect(
    played_by: Sequence[PlayedBy],
    make_vector: Callable[[int], VectorEnv[Any, Any, Any]],
    dataset: str,
    *,
    num_envs: Size = 16,
    seed: Seed = 0,
    env_spec: EnvSpec | None = None,
    reference: Reference | None = None,
    measure_reference: CountOrZero = 0,
    recipe: dict[str, Any] | None = None,
    overwrite: bool = False,
    max_steps: Count = LONGEST,
) -> "MinariDataset":
    """Play episodes and write them as a Minari dataset, without loss and in the environment's own form.

    Episodes are written as they end; the dataset appears when all are there, or not at all. Every environment plays
    the same number of episodes (or one less, settled beforehand), so that short ones are not over-represented.
    Each episode's metadata has `source` (its place in `played_by`), `played_by` (its name), `row_seed` and `turn`: the
    row's environment was reset with `row_seed`, then without a seed `turn` times.

    Args:
        played_by: the players, one after the other.
        make_vector: number of rows -> gymnasium vector environment, in any autoreset mode.
        dataset: Minari id; "-v0" is added where no version stands.
        num_envs: environments to play at once.
        seed: of environments and actions; every source has seeds of its own.
        env_spec: how to make one environment again, as `gym.make(...).spec`; None: unknown, only the spaces are kept.
        reference: returns that count as 0 and 100.
        measure_reference: number of episodes of random actions whose mean return counts as 0, if `reference` is None;
            100 is then the largest return in the dataset. 0: neither is written.
        recipe: plain values to add to the recipe in the metadata.
        overwrite: replace a dataset of this name.
        max_steps: largest length of an episode.

    Returns:
        the dataset, as `minari.load_dataset` gives it.

    Raises:
        ValueError: there is such a dataset, the spaces differ, or an episode does not end; nothing has been written.
        ImportError: minari or h5py is not installed.
    """
    if not played_by:
        raise ValueError("collect: expected at least one player, got none")
    rows = max(1, min(num_envs, max(one.episodes for one in played_by)))
    random = _random_return(make_vector, measure_reference if reference is None else 0, seed)
    env = Recorder(make_vector(rows))
    try:
        spaces = {"observation_space": env.stored_space, "action_space": env.single_action_space}
        writer = DatasetWriter(dataset, **spaces, env_spec=env_spec, overwrite=overwrite)
        with writer:
            parts = _play_all(played_by, env, writer, seed, max_steps)
            if random is not None:
                reference = _measure_reference(random, measure_reference, parts)
            writer.commit(_metadata(played_by, parts, reference, {"seed": seed, "num_envs": rows, **(recipe or {})}))
    finally:
        env.close()
    from minari import load_dataset

    return load_dataset(writer.id)


def _play_all(
    played_by: Sequence[PlayedBy], env: Recorder, writer: DatasetWriter, seed: int, max_steps: int
) -> list[np.ndarray]:
    """Play every source, one after the other; the returns of each."""
    vectors = [one.around(env, _device(one)) for one in played_by]  # all of them are checked before the first one plays
    return [
        _play_one(i, one, env, vector, writer, seed + i * env.num_envs, max_steps)
        for i, (one, vector) in enumerate(zip(played_by, vectors, strict=True))
    ]


def _measure_reference(random: float, episodes: int, parts: Sequence[np.ndarray]) -> Reference:
    source = f"measured: {episodes} episodes of random actions; the largest return of the dataset"
    return Reference(random=random, expert=max(float(part.max()) for part in parts), source=source)


def _play_one(
    source: int, by: PlayedBy, env: Recorder, vector: Vector, writer: DatasetWriter, seed: int, max_steps: int
) -> np.ndarray:
    """Play one source's episodes into the writer; their returns."""
    rows = env.num_envs
    quota = np.full(rows, by.episodes // rows) + (np.arange(rows) < by.episodes % rows)
    returns: list[float] = []
    for _ in play(vector, by.actor(vector, seed), seed=seed, max_steps=max_steps):
        for episode in env.take():
            if episode.turn < quota[episode.row]:
                _add(writer, episode, source, by, seed)
                returns.append(float(episode.rewards.sum()))
        if len(returns) == by.episodes:
            break
    return np.array(returns)


def _add(writer: DatasetWriter, episode: Recorded, source: int, by: PlayedBy, seed: int) -> None:
    row_seed = seed + episode.row
    about = {"source": source, "played_by": by.name, "row_seed": row_seed, "turn": episode.turn}
    writer.add(episode, seed=row_seed if episode.turn == 0 else None, about=about)


def _metadata(
    played_by: Sequence[PlayedBy], parts: Sequence[np.ndarray], reference: Reference | None, facts: dict[str, Any]
) -> dict[str, Any]:
    sources = [
        {
            "name": one.name,
            "policy": "random" if one.policy is None else "greedy" if one.deterministic else "sampled",
            "episodes": len(returns),
            "return_mean": float(returns.mean()),
            **({} if one.target is None else {"target_return": one.target}),
            **one.details,
        }
        for one, returns in zip(played_by, parts, strict=True)
    ]
    metadata: dict[str, Any] = {
        "algorithm_name": " + ".join(dict.fromkeys(one.name for one in played_by)),
        "description": f"Collected by rlmin {__version__}; `recipe` says how.",
        "recipe": {"rlmin": __version__, **facts, "sources": sources},
    }
    if reference is not None:
        metadata |= {"ref_min_score": reference.random, "ref_max_score": reference.expert}
        metadata |= {"reference_source": reference.source}
    return metadata


def _random_return(make_vector: Callable[[int], VectorEnv[Any, Any, Any]], episodes: int, seed: int) -> float | None:
    """Mean return of random actions; None for no episodes."""
    if not episodes:
        return None
    vector = adapt(make_vector(min(16, episodes)))
    try:
        return evaluate_random(vector, episodes=episodes, seed=seed).mean_return
    finally:
        vector.close()


def _device(by: PlayedBy) -> Any:
    return "cpu" if by.policy is None else next(by.policy.parameters()).device
