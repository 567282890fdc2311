"""The settings of a training run: its environment or data, its length, and every setting of the agent and policy."""

import functools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from rlmin.agents import AGENTS, PPO, Agent, DecisionAgent
from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.online import OnlineAgent
from rlmin.agents.ppo_config import PPOConfig
from rlmin.checks import check_names
from rlmin.distributed.join import TIMEOUT
from rlmin.encoders.cell import option_names
from rlmin.settings import Count, CountOrZero, Known, Positive, Seed, Settings, Threads, Workers
from rlmin.vector.make import parse_pairs

PAIRS = ("env_kwargs", "eval_kwargs")
"""Settings given as key=value pairs."""


@dataclass(frozen=True, kw_only=True)
class Run(Settings):
    """A training run of any kind: where it happens, and what it leaves."""

    algorithm: Annotated[str, Known(AGENTS)]  # Algorithm to train
    device: str = "cpu"  # Device of the weights: cpu, cuda, ...
    threads: Threads | None = None  # Threads of torch on the CPU; None: as torch decides
    rank_timeout: Positive = TIMEOUT  # Seconds that a process under torchrun waits for another one that hangs
    folder: Path | None = None  # Folder of the run; None: runs/NAME-NUMBER, the next free number
    wandb: str | None = None  # Project of Weights & Biases to log to as well; None: none
    evaluations: CountOrZero = 10  # Greedy evaluations during training, the best policy kept in RUN/best; 0: none
    evaluation_share: Positive = 0.25  # Steps that evaluations during training may take, as a share of those trained on

    @property
    def agent_class(self) -> type[Agent]:
        """The class of the agent that is trained.

        Raises:
            ValueError: these are the settings of another algorithm.
        """
        kind = AGENTS[self.algorithm]
        if not isinstance(self, kind.settings):
            raise ValueError(f"algorithm={self.algorithm!r}: {type(self).__name__} does not have its settings")
        return kind

    @property
    def agent_settings(self) -> Any:
        """The agent's own settings."""
        kind: Any = self.agent_class.settings
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})

    @property
    def run(self) -> dict[str, Any]:
        """The settings that a resumed run needs beside the agent's, as plain values."""
        return {name: getattr(self, name) for name in RUN}


@dataclass(frozen=True, kw_only=True)
class OnlineRun(Run):
    """A training run in an environment: which one, and for how long."""

    algorithm: Annotated[str, Known(AGENTS)] = "ppo"  # Algorithm to train
    env: str  # Gymnasium id of the environment
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value for the environment's constructor
    total_timesteps: Count = 500_000  # Environment steps, summed over environments
    seed: Seed = 0  # Random seed for weights, environments and actions
    workers: Workers = 0  # Processes that step the environments; 0: none beside this one
    save_interval: Count = 100_000  # Environment steps between checkpoints
    eval_episodes: CountOrZero = 200  # Episodes of the greedy evaluation at the end; 0: none
    eval_kwargs: tuple[str, ...] = ()  # Pairs key=value that differ from env_kwargs, for a second evaluation
    trust: bool = False  # Whether the module that a preset file's `env` names is imported, whose code then runs

    @property
    def run(self) -> dict[str, Any]:
        """See `Run.run`."""
        return super().run | {"eval_kwargs": parse_pairs(self.eval_kwargs)}


@dataclass(frozen=True, kw_only=True)
class OfflineRun(Run):
    """A training run on logged data: which data, and for how long."""

    algorithm: Annotated[str, Known(AGENTS)] = "decision"  # Algorithm to train
    dataset: str  # Minari id, or path of a D4RL file
    env: str | None = None  # Gymnasium id of the environment to evaluate in; None: that of the data, if they name it
    env_kwargs: tuple[str, ...] = ()  # Pairs key=value for the constructor of `env`
    total_timesteps: Count = 5_000_000  # Logged steps to train on, repeats counted
    seed: Seed = 0  # Random seed for weights, order of the data and actions
    save_interval: Count = 1_000_000  # Logged steps between checkpoints
    eval_episodes: CountOrZero = 100  # Episodes of each target in the evaluation at the end; 0: none
    skip_bad_episodes: bool = False  # Whether episodes with a fault are left out, with a report; else they are errors
    trust: bool = False  # Whether the modules that the dataset or a preset file names are imported; their code runs

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.env_kwargs and self.env is None:
            raise ValueError("env_kwargs belong to an environment; name it with env")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OnlineRun, PPOConfig):
    """A training run in an environment, with every setting of PPO and its policy."""


@dataclass(frozen=True, kw_only=True)
class DecisionTrainConfig(OfflineRun, DecisionConfig):
    """A training run on logged data, with every setting of the decision agent and its policy."""


@functools.cache
def run_class(algorithm: str) -> Any:
    """The settings of training runs of an algorithm: those of a run, and those of its agent.

    Raises:
        ValueError: there is no such algorithm.
    """
    check_names("algorithm", [algorithm], AGENTS)
    kind = AGENTS[algorithm]
    known = {PPO.name: TrainConfig, DecisionAgent.name: DecisionTrainConfig}
    if algorithm in known:
        return known[algorithm]
    base = OnlineRun if issubclass(kind, OnlineAgent) else OfflineRun
    body: dict[str, Any] = {"__doc__": base.__doc__, "__module__": __name__, "algorithm": algorithm}
    body["__annotations__"] = {"algorithm": Annotated[str, Known(AGENTS)]}
    return dataclass(frozen=True, kw_only=True)(type(f"{kind.__name__}Run", (base, kind.settings), body))


RUN = ("device", "threads", "save_interval", "evaluations", "evaluation_share", "eval_episodes", "wandb")


def settable(kind: Any) -> list[str]:
    """Names that a preset or a suite may set: options of encoders too, but not `trust`, which only a user may give."""
    own = [field.name for field in fields(kind) if field.name != "trust"]
    return own + sorted(option_names() - set(own))
