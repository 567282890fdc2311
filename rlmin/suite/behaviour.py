"""Behaviour policies: checkpoints of PPO during training in one environment, and their returns.

    expert           the checkpoint with the largest mean return
    medium           the first checkpoint at least halfway from random to expert
    medium-replay    every checkpoint up to medium, the untrained one included, the same number of episodes each
    random           actions drawn uniformly

All of them sample actions. Every quality of an environment has the same reference scores: the measured means of
random actions (0) and of the expert (100).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmin.agents.load import load
from rlmin.agents.ppo import PPO
from rlmin.agents.ppo_config import PPOConfig
from rlmin.data import Reference
from rlmin.evaluation.collect import PlayedBy
from rlmin.evaluation.evaluate import evaluate, evaluate_random
from rlmin.files.read_json import read_json
from rlmin.runs.checkpoint import LEARNER, write_atomic
from rlmin.runs.header import number as is_number
from rlmin.vector import adapt
from rlmin.vector.arena import Arena

MEASURED = "measured.json"
EPISODES = 100  # episodes to measure the mean return of a checkpoint
SEED = 30_000  # random seed of their environments

QUALITIES = ("random", "medium", "medium-replay", "expert")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """PPO in one environment.

    Args:
        folder: of the checkpoints; existing ones are continued.
        arena: environment for training and measurement.
        steps: environment steps in total.
        checkpoints: number of checkpoints at equal distances, beside the untrained policy.
        seed: random seed for weights, environments and actions.
        config: settings of PPO.
    """

    folder: Path
    arena: Arena
    steps: int
    checkpoints: int
    seed: int = 0
    config: PPOConfig = field(default_factory=PPOConfig)

    def train(self) -> list[Path]:
        """Finish the training; returns the folders of the checkpoints, the untrained policy first."""
        settings = {"env": str(self.arena), "steps": self.steps, "checkpoints": self.checkpoints, "seed": self.seed}
        _check_same(self.folder / "settings.json", settings | {"ppo": self.config.to_saved()})
        folders = [self.folder / f"{number:03d}" for number in range(self.checkpoints + 1)]
        agent = PPO(self.arena.id, env_kwargs=dict(self.arena.kwargs), seed=self.seed, config=self.config)
        done = sum((folder / LEARNER).exists() for folder in folders)
        if done:
            agent.resume(folders[done - 1])
        for number, folder in list(enumerate(folders))[done:]:
            steps = self.steps * number // self.checkpoints - agent.num_timesteps
            if steps > 0:
                agent.learn(steps, reset_num_timesteps=False)
            agent.save(folder)
        agent.close()
        return folders

    def measure(self) -> "Measured":
        """Train, and measure every checkpoint once."""
        folders, file = self.train(), self.folder / MEASURED
        if file.exists():
            return _read_measured(file, folders)
        vector = adapt(self.arena(20))
        try:
            random = evaluate_random(vector, episodes=EPISODES, seed=SEED).mean_return
            policies = (load(folder).policy for folder in folders)
            found = [evaluate(policy, vector, episodes=EPISODES, deterministic=False, seed=SEED) for policy in policies]
        finally:
            vector.close()
        returns = [one.mean_return for one in found]
        write_atomic(file, json.dumps({"random": random, "returns": returns}, indent=1).encode())
        return Measured(folders=folders, random=random, returns=returns)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Mean returns of the checkpoints with sampled actions."""

    folders: Sequence[Path]
    random: float
    returns: Sequence[float]  # one for each folder

    @property
    def expert(self) -> int:
        """The place of the expert among the checkpoints."""
        return max(range(len(self.returns)), key=lambda i: self.returns[i])

    @property
    def medium(self) -> int:
        """The place of the first checkpoint that is at least halfway."""
        half = (self.random + self.returns[self.expert]) / 2
        return next(i for i, found in enumerate(self.returns) if found >= half)

    @property
    def reference(self) -> Reference:
        """Random actions and the expert."""
        source = f"measured: {EPISODES} episodes each of random actions and of the expert's sampled actions"
        return Reference(random=self.random, expert=self.returns[self.expert], source=source)

    def list_players(self, quality: str, episodes: int) -> list[PlayedBy]:
        """The players of a quality, a name in `QUALITIES`.

        Raises:
            ValueError: random actions earn at least as much as every checkpoint, or there are too few episodes.
        """
        if quality == "random":
            return [PlayedBy(name="random", policy=None, episodes=episodes)]
        if self.returns[self.expert] <= self.random:
            text = f"the best checkpoint earns {self.returns[self.expert]:g}, random actions {self.random:g}"
            raise ValueError(f"{self.folders[0].parent}: {text}: nothing was learned; train it for longer")
        last = self.expert if quality == "expert" else self.medium
        chosen = range(last + 1) if quality == "medium-replay" else [last]
        shares = [episodes // len(chosen) + (i < episodes % len(chosen)) for i in range(len(chosen))]
        return [self._make_player(i, share) for i, share in zip(chosen, shares, strict=True)]

    def _make_player(self, place: int, episodes: int) -> PlayedBy:
        agent = load(self.folders[place])
        details = {"num_timesteps": agent.num_timesteps, "seed": agent.seed, "measured_return": self.returns[place]}
        return PlayedBy(name="ppo", policy=agent.policy, episodes=episodes, deterministic=False, details=details)


def _read_measured(file: Path, folders: Sequence[Path]) -> Measured:
    """The returns that were measured before."""
    found = read_json(file)
    random, returns = found.get("random"), found.get("returns")
    numbers = [random, *(returns if isinstance(returns, list) else [])]
    if len(numbers) != 1 + len(folders) or not all(map(is_number, numbers)):
        raise ValueError(f"{file}: expected a return of each of {len(folders)} checkpoints; delete it to measure anew")
    return Measured(folders=folders, random=numbers[0], returns=numbers[1:])


def _check_same(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings, or raise a ValueError if the folder has others."""
    text = json.dumps(settings, indent=1)
    if not file.exists():
        write_atomic(file, text.encode())
        return
    found = read_json(file)
    if not isinstance(found.get("ppo"), dict):
        raise ValueError(f"{file}: expected the settings of a training; delete the folder, or use --out")
    found["ppo"] = PPOConfig.from_saved(found["ppo"]).to_saved()  # in today's form
    if json.loads(json.dumps(found)) != json.loads(text):
        raise ValueError(f"{file.parent}: trained with other settings ({file.name}); delete the folder, or use --out")
