"""Recipes of the datasets of the offline suite, which need no download.

Dataset "rlmin/NAME-QUALITY-v0" is one quality of one recipe:

    random, medium, medium-replay, expert    PPO and its checkpoints in the recipe's environment, see behaviour.py
    oracle                                   T-mazes up to a length, some of them with a wrong turn at the end
    bot                                      a BabyAI level by minigrid's own bot, see demonstrations.py
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.agents.ppo_config import PPOConfig
from rlmin.checks import check_names
from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import preset_arguments
from rlmin.data import Reference
from rlmin.data.recorder import Recorded, make_stored_space
from rlmin.data.writer import DatasetWriter
from rlmin.encoders.cell import option_names
from rlmin.evaluation.collect import collect
from rlmin.evaluation.evaluate import evaluate_random
from rlmin.files.trust import from_file
from rlmin.settings import Count, Seed, Settings, Share
from rlmin.suite import behaviour
from rlmin.suite.demonstrations import play_bot, walk_t_mazes
from rlmin.vector import adapt
from rlmin.vector.arena import Arena

QUALITIES = (*behaviour.QUALITIES, "oracle", "bot")


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """One environment, and the datasets to record in it."""

    name: str  # Name of the recipe
    env: str  # Gymnasium id of the environment
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # Arguments for the constructor of the environment
    qualities: tuple[str, ...] = behaviour.QUALITIES  # Qualities to record
    episodes: Count = 500  # Episodes of each quality
    seed: Seed = 0  # Random seed for everything
    steps: Count = 500_000  # Environment steps of PPO
    checkpoints: Count = 40  # Checkpoints of PPO, at equal distances
    ppo: dict[str, Any] = field(default_factory=dict)  # Settings of PPO
    wrong: Share = 0.1  # Share of the oracle's wrong turns

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        check_names(f"quality of {self.name}", self.qualities, QUALITIES)
        if "oracle" in self.qualities and self.env != "rlmin/TMaze-v0":
            raise ValueError(f"{self.name}: an oracle is known for rlmin/TMaze-v0 only, not for {self.env}")
        check_names(f"PPO setting of {self.name}", self.ppo, [*(f.name for f in fields(PPOConfig)), *option_names()])

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any]) -> "Recipe":
        """A recipe from the entries of a YAML file.

        Raises:
            ValueError: an unknown or invalid setting.
        """
        check_names(f"setting of {name}", settings, [f.name for f in fields(cls) if f.name != "name"])
        env = from_file(settings.get("env"), where=f"recipe {name}")
        return cls(name=name, **{**settings, "env": env})

    @property
    def datasets(self) -> dict[str, str]:
        """Minari id -> quality."""
        return {f"rlmin/{self.name}-{quality}-v0": quality for quality in self.qualities}

    @property
    def ppo_config(self) -> PPOConfig:
        """The settings of PPO, read by the command line's parser."""
        return parse_agent(PPOConfig, preset_arguments(self.ppo), prog="rlmin bench offline")

    @property
    def arena(self) -> Arena:
        """The environment."""
        return Arena(id=self.env, kwargs=dict(self.env_kwargs))

    def make(self, dataset: str, out: Path, *, overwrite: bool = False) -> None:
        """Make one dataset in Minari's folder.

        Args:
            dataset: one of `datasets`.
            out: folder of the behaviour policies.
            overwrite: replace a dataset of this name.

        Raises:
            ValueError: it exists already, or cannot be made; nothing has been written.
        """
        quality = self.datasets[dataset]
        if quality in behaviour.QUALITIES:
            self._play_ppo(dataset, quality, out, overwrite)
        else:
            self._demonstrate(dataset, quality, overwrite)

    def _play_ppo(self, dataset: str, quality: str, out: Path, overwrite: bool) -> None:
        measured = behaviour.Behaviour(
            folder=out / self.name,
            arena=self.arena,
            steps=self.steps,
            checkpoints=self.checkpoints,
            seed=self.seed,
            config=self.ppo_config,
        ).measure()
        collect(
            measured.list_players(quality, self.episodes),
            self.arena,
            dataset,
            seed=1_000_000 + self.seed,
            env_spec=self.arena.spec(),
            reference=measured.reference,
            recipe={"env": self.env, "env_kwargs": dict(self.env_kwargs), "quality": quality},
            overwrite=overwrite,
        )

    def _demonstrate(self, dataset: str, quality: str, overwrite: bool) -> None:
        returns = []
        vector = self.arena(1)
        spaces = {"observation_space": make_stored_space(vector.single_observation_space)}
        spaces["action_space"] = vector.single_action_space
        vector.close()
        with DatasetWriter(dataset, **spaces, env_spec=self.arena.spec(), overwrite=overwrite) as writer:
            for episode, seed in self._demonstrations(quality):
                writer.add(episode, seed=seed, about={"played_by": quality, "row_seed": seed, "turn": 0})
                returns.append(float(episode.rewards.sum()))
            reference = self._reference(quality, float(np.mean(returns)))
            recipe = {"env": self.env, "env_kwargs": dict(self.env_kwargs), "quality": quality, "seed": self.seed}
            writer.commit(
                {
                    "algorithm_name": quality,
                    "recipe": recipe | ({"wrong": self.wrong} if quality == "oracle" else {}),
                    "ref_min_score": reference.random,
                    "ref_max_score": reference.expert,
                    "reference_source": reference.source,
                }
            )

    def _demonstrations(self, quality: str) -> Iterator[tuple[Recorded, int]]:
        if quality == "bot":
            return play_bot(self.env, self.episodes, seed=self.seed, **self.env_kwargs)
        length = int(self.env_kwargs.get("length", 150))
        return walk_t_mazes(self.episodes, length=length, wrong=self.wrong, seed=self.seed)

    def _reference(self, quality: str, mean: float) -> Reference:
        if quality == "oracle":  # so that the score is the share of right turns
            return Reference(random=0.0, expert=1.0, source="by the rules: the wrong turn and the right one")
        vector = adapt(self.arena(10))
        try:
            random = evaluate_random(vector, episodes=behaviour.EPISODES, seed=behaviour.SEED).mean_return
        finally:
            vector.close()
        source = f"measured: {behaviour.EPISODES} episodes of random actions; the mean of the bot's"
        return Reference(random=random, expert=mean, source=source)
