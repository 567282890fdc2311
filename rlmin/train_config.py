"""The settings of a training run: what to train on, for how long, and every setting of the agent and its policy."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.ppo_config import PPOConfig
from rlmin.encoders.cell import option_names
from rlmin.make import parse_pairs
from rlmin.settings import Count, CountOrZero, Seed, Threads, Workers

PAIRS = ("env_kwargs", "eval_kwargs")
"""Settings that are key=value pairs."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PPOConfig):
    """One training run: what to train on, for how long, and every setting of PPO and its policy."""

    env: str  # Gymnasium id of the environment
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value for the environment's constructor
    total_timesteps: Count = 500_000  # Environment steps, summed over environments
    seed: Seed = 0  # Random seed for weights, environments and actions
    device: str = "cpu"  # Device of the weights: cpu, cuda, ...
    workers: Workers = 0  # Processes that step the environments; 0: none beside this one
    threads: Threads | None = None  # Threads of torch on the CPU; None: as torch decides
    folder: Path | None = None  # Folder of the run; None: runs/NAME-NUMBER, the next free number
    wandb: str | None = None  # Project of Weights & Biases to log to as well; None: none
    save_interval: Count = 100_000  # Environment steps between checkpoints
    eval_episodes: CountOrZero = 200  # Episodes of the greedy evaluation at the end; 0: none
    eval_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from env_kwargs, for a second evaluation
    trust: bool = False  # Whether the module that a preset file's `env` names is imported, whose code then runs

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
    env: str | None = None  # Gymnasium id of the environment to evaluate in; None: that of the data, if they name it
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value for the constructor of `env`
    total_timesteps: Count = 5_000_000  # Logged steps to train on, repeats counted
    seed: Seed = 0  # Random seed for weights, order of the data and actions
    device: str = "cpu"  # Device of the weights: cpu, cuda, ...
    threads: Threads | None = None  # Threads of torch on the CPU; None: as torch decides
    folder: Path | None = None  # Folder of the run; None: runs/NAME-NUMBER, the next free number
    wandb: str | None = None  # Project of Weights & Biases to log to as well; None: none
    save_interval: Count = 1_000_000  # Logged steps between checkpoints
    eval_episodes: CountOrZero = 100  # Episodes of each target in the evaluation at the end; 0: none
    trust: bool = False  # Whether the modules that the dataset or a preset file names are imported; their code runs

    def __post_init__(self) -> None:
        super().__post_init__()
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
    """What a preset or a suite may set: options of encoders too, but not `trust`, which is the user's own word."""
    own = [field.name for field in fields(kind) if field.name != "trust"]
    return own + sorted(option_names() - set(own))
