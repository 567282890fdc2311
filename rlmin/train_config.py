"""The settings of a training run: what to train on, for how long, and every setting of the agent and its policy."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.ppo_config import PPOConfig
from rlmin.make import parse_pairs

LEAST = {"total_timesteps": 1, "save_interval": 1, "eval_episodes": 0, "workers": 0, "threads": 1}
PAIRS = ("env_kwargs", "eval_kwargs")
"""Settings that are key=value pairs."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PPOConfig):
    """One training run: what to train on, for how long, and every setting of PPO and its policy."""

    env: str  # gymnasium id
    env_kwargs: tuple[str, ...] = ()  # key=value pairs for the environment's constructor
    total_timesteps: int = 500_000  # environment steps, summed over environments
    seed: int = 0  # of weights, environments and actions
    device: str = "cpu"  # or cuda, ...
    workers: int = 0  # processes that step the environments; 0: this one
    threads: int | None = None  # of torch on the CPU; None: as torch decides
    folder: Path | None = None  # of the run; None: runs/NAME-NUMBER, the next free number
    wandb: str | None = None  # project of Weights & Biases to log to as well; None: not
    save_interval: int = 100_000  # environment steps between checkpoints
    eval_episodes: int = 200  # greedy, at the end; 0: none
    eval_kwargs: tuple[str, ...] = ()  # for a second evaluation: key=value pairs that differ from env_kwargs
    trust: bool = False  # import the module that a preset file's `env` names, whose code then runs

    def __post_init__(self) -> None:
        PPOConfig.__post_init__(self)
        check_least(self)

    @property
    def ppo(self) -> PPOConfig:
        """The settings that are PPO's."""
        return PPOConfig(**{f.name: getattr(self, f.name) for f in fields(PPOConfig)})

    @property
    def run(self) -> dict[str, Any]:
        """The settings that a resumed run needs beside PPO's, as plain values."""
        return {name: getattr(self, name) for name in RUN} | {"eval_kwargs": parse_pairs(self.eval_kwargs)}


@dataclass(frozen=True, kw_only=True)
class DecisionTrainConfig(DecisionConfig):
    """One training run on logged data: which, for how long, and every setting of the decision agent and its policy."""

    dataset: str  # Minari id, or path of a D4RL file
    env: str | None = None  # gymnasium id, to evaluate in; None: that of the data, where they tell it
    env_kwargs: tuple[str, ...] = ()  # key=value pairs for the constructor of `env`
    total_timesteps: int = 5_000_000  # logged steps to train on, repeats counted
    seed: int = 0  # of weights, order of the data and actions
    device: str = "cpu"  # or cuda, ...
    threads: int | None = None  # of torch on the CPU; None: as torch decides
    folder: Path | None = None  # of the run; None: runs/NAME-NUMBER, the next free number
    wandb: str | None = None  # project of Weights & Biases to log to as well; None: not
    save_interval: int = 1_000_000  # logged steps between checkpoints
    eval_episodes: int = 100  # of each target, at the end; 0: none
    trust: bool = False  # import the modules that the dataset or a preset file names, whose code then runs

    def __post_init__(self) -> None:
        DecisionConfig.__post_init__(self)
        check_least(self)
        if self.env_kwargs and self.env is None:
            raise ValueError("env_kwargs belong to an environment; name it with env")

    @property
    def decision(self) -> DecisionConfig:
        """The settings that are the decision agent's."""
        return DecisionConfig(**{f.name: getattr(self, f.name) for f in fields(DecisionConfig)})

    @property
    def run(self) -> dict[str, Any]:
        """The settings that a resumed run needs beside the agent's, as plain values."""
        return {name: getattr(self, name) for name in RUN}


RUN = ("device", "threads", "save_interval", "eval_episodes", "wandb")


def settable(kind: type[TrainConfig] | type[DecisionTrainConfig]) -> list[str]:
    """What a preset or a suite may set: everything but `trust`, which is the user's own word."""
    return [field.name for field in fields(kind) if field.name != "trust"]


def check_least(config: TrainConfig | DecisionTrainConfig) -> None:
    """Raise a ValueError where a number is below the least that makes sense."""
    for name, least in LEAST.items():
        if getattr(config, name, None) is not None and getattr(config, name) < least:
            raise ValueError(f"{name}={getattr(config, name)}: expected at least {least}")
