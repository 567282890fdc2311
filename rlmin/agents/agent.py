"""Agent: the part that all algorithms share. An agent acts, is saved and is resumed.

The names are those of stable-baselines3, whose callbacks and helpers therefore work unchanged.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, overload

import gymnasium as gym
import numpy as np
import torch

from rlmin import __version__
from rlmin.agents.copying import deep_copy, reduce_agent
from rlmin.agents.env_spec import describe_env, keepable
from rlmin.agents.restore import restore
from rlmin.agents.sb3_habits import Habits
from rlmin.agents.schema import check_learner, check_weights, policy_weights
from rlmin.distributed import ALONE, Ranks
from rlmin.learning.flat_adam import FlatAdam
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.actor import Actor, EnvActor, make_actor
from rlmin.policy.fit import is_conditioned
from rlmin.policy.precision import set_tf32
from rlmin.policy.predict import PolicyState, predict
from rlmin.runs.checkpoint import LEARNER, Tensors, load_optimizer, optimizer_tensors, read, section, write
from rlmin.settings import Seed, check_setting
from rlmin.settings.boundary import accept_names, checked
from rlmin.settings.sb3_convert import without_stand_ins

if TYPE_CHECKING:
    from stable_baselines3.common.logger import Logger

AGENTS: dict[str, type["Agent"]] = {}
"""Every algorithm by its name: the one place that turns a name into a class. A class with a `name` is in it."""


class Agent(Habits, ABC):
    """A policy that can act, be saved and be resumed; a subclass trains it.

    A subclass with a `name` of its own is an algorithm: runs are saved and loaded, and `rlmin train --algorithm` finds
    it, by that name. It is an `OnlineAgent` or an `OfflineAgent`, and is made with the arguments that PPO or
    DecisionAgent takes.

    Attributes:
        policy: the weights.
        num_timesteps: environment steps trained on.
        seconds: wall-clock time of this training, without interruptions.
        total_timesteps: step at which the last `learn` ends, or ended.
        stop_requested: if set from outside (a signal handler), `learn` returns after the current update.
        run: settings of the training run, saved with the agent; plain values only.
        trust: whether modules named in files may be imported, see `rlmin.files.trust`; not saved.
        ranks: the processes that train this agent together; `learn`, `save` and `resume` are called on all of them.
    """

    name: ClassVar[str]
    about: ClassVar[str]  # a noun phrase for model cards
    finds_data: bool = False  # whether its data can be found again
    settings: ClassVar[type[PolicyConfig]]
    config: PolicyConfig
    policy: Policy
    generator: torch.Generator
    optimizer: FlatAdam
    trust: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            AGENTS[cls.name] = cls

    def __init__(
        self, *, seed: int, device: torch.device | str, env_spec: dict[str, Any], ranks: Ranks = ALONE
    ) -> None:
        self.ranks = ranks
        self.seed, self.device, self.env_spec = check_setting("seed", seed, Seed), torch.device(device), env_spec
        self.num_timesteps = self.total_timesteps = self.num_updates = 0
        self.seconds = 0.0
        self.stop_requested = False
        self.run: dict[str, Any] = {}
        self._logger: Logger | None = None

    @property
    def env_spec(self) -> dict[str, Any]:
        """{"id", "kwargs", "workers"}: how to make the environment again; the id is None where that is unknown."""
        return self._env_spec

    @env_spec.setter
    def env_spec(self, spec: dict[str, Any]) -> None:
        self._env_spec = keepable(spec)

    @classmethod
    @checked
    def from_spaces(
        cls,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        config: Any,
        seed: Seed = 0,
        device: torch.device | str = "cpu",
        env_spec: dict[str, Any] | None = None,
        ranks: Ranks = ALONE,
    ) -> Self:
        """An agent that can predict and save at once, and learn once it has an environment or data.

        Args:
            observation_space, action_space: of the policy.
            config: of the class `settings`.
            seed, device, ranks: as for the class.
            env_spec: see `describe_env`.
        """
        agent = cls.__new__(cls)
        Agent.__init__(agent, seed=seed, device=device, env_spec=env_spec or describe_env(None), ranks=ranks)
        agent._build(config, observation_space, action_space)
        return agent

    def _build(self, config: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Build everything that needs neither environment nor data; a subclass adds its optimizer."""
        self.config = config
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers untouched
            torch.manual_seed(self.seed)
            self.policy = Policy(observation_space, action_space, config)
        self.policy.to(self.device).eval()
        set_tf32(self.device, config.tf32)
        self.generator = torch.Generator(self.device).manual_seed(self.seed)

    @abstractmethod
    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        *,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
        log_interval: int = 1,
    ) -> Self:
        """Train; see the subclass."""

    @abstractmethod
    def ready(self) -> None:
        """Open the environment by its id, or find the data again.

        Raises:
            ValueError: neither is known.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Compile what the first update needs."""

    @abstractmethod
    def close(self) -> None:
        """Release the environment or the data."""

    @abstractmethod
    def set_env(self, env: Any) -> None:
        """See the subclass."""

    @abstractmethod
    def get_env(self) -> Any:
        """See the subclass."""

    def learner_state(self) -> Tensors:
        """Everything training depends on beside the weights, as named tensors; a subclass adds its own.

        Rows are those of all ranks.
        """
        state = {f"optimizer.{name}": x for name, x in optimizer_tensors(self.optimizer).items()}
        return state | {f"generator.{self.device.type}": self.generator.get_state()}

    def load_learner_state(self, tensors: Tensors) -> None:
        """The inverse of `learner_state`, as far as device, environment or data allow."""
        load_optimizer(self.optimizer, section(tensors, "optimizer"))
        stream = tensors.get(f"generator.{self.device.type}")  # random numbers of another kind of device do not fit
        if stream is not None:
            self.generator.set_state(stream)
        else:
            self.generator.manual_seed(self.seed + self.num_timesteps)

    def check_finite(self, measured: Mapping[str, float]) -> None:
        """Raise a FloatingPointError if a part of the gradient step that would be taken next is NaN or infinite."""
        for name, x in measured.items():
            if not math.isfinite(x):
                raise FloatingPointError(
                    f"{name} is {x} at step {self.num_timesteps} (update {self.num_updates}); "
                    "the weights are those before this gradient step. Try a smaller lr or max_grad_norm"
                )

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Context of `learn`: all ranks begin with equal weights. Its end, also by an error, ends a request to stop.

        Gradients are on even if somebody has switched them off for the whole process.
        """
        try:
            if not self.ranks.is_alone:
                self.policy.load_state_dict({n: self.ranks.broadcast(x) for n, x in self.policy.state_dict().items()})
            with torch.enable_grad():
                yield
        finally:
            self.stop_requested = False  # not before: a request that came before the first update counts too

    @contextmanager
    def training(self) -> Iterator[None]:
        """The policy in training mode; afterwards it can act and has no gradients, also on errors."""
        try:
            self.policy.train()
            yield
        finally:
            self.policy.eval()
            for x in (*self.policy.parameters(), self.optimizer.flat):
                x.grad = None

    @checked
    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
        *,
        reward: Any = None,
        action_mask: Any = None,
    ) -> tuple[np.ndarray, PolicyState]:
        """Choose actions: see `rlmin.policy.predict.predict`; the signature is that of stable-baselines3."""
        return predict(
            self.policy,
            observation,
            state,
            episode_start,
            deterministic,
            reward=reward,
            action_mask=action_mask,
            generator=self.generator,
        )

    def parts(self, *, environment: bool) -> dict[str, Any]:
        """The parts of a copy: attributes by name; see `rlmin.agents.copying`.

        Args:
            environment: whether to include the training environment.
        """
        return vars(self) | {"_logger": None}

    def regain(self, data: Any) -> None:
        """Rebuild what a copy does not contain, from the data given to the original, if any."""
        assert data is None, "an agent that learns from data uses them"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return cast(Self, deep_copy(self, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_agent(self)

    @property
    def return_scale(self) -> float:
        """The return, in env units, that the policy sees as 1; 1 if it is not return-conditioned."""
        return getattr(self.config, "return_scale", None) or 1.0

    @overload
    def actor(self, env: None = None, **options: Any) -> Actor: ...
    @overload
    def actor(self, env: Any, **options: Any) -> EnvActor: ...
    def actor(self, env: Any = None, **options: Any) -> Actor | EnvActor:
        """The policy as a callable that keeps its memory: see `rlmin.policy.actor.make_actor`.

        A return-conditioned agent aims for `target_return=`, else for the largest return of its data, unless `env`
        (wrapped in `rlmin.wrappers.ReturnToGo`) or the observation has a target.
        """
        if is_conditioned(self.policy):
            data = self.run.get("data")
            aim = {} if data is None else {"default_target": max(data["returns"])}
            options = {"return_scale": self.return_scale, **aim, **options}
        act: Actor | EnvActor = make_actor(self.policy, env, **options)
        return act

    @accept_names(path="folder")
    @checked
    def save(self, folder: str | Path, exclude: Any = None, include: Any = None) -> None:
        """Write config, weights and learner state to `folder`; each file appears whole or not at all.

        Of several ranks all call this, and the main one writes. `exclude` and `include`, of stable-baselines3, have no
        effect.

        Raises:
            FloatingPointError: the weights of the ranks differ.
        """
        self.warn_of_schedules()
        spaces, weights = (self.policy.observation_space, self.policy.action_space), self.policy.state_dict()
        self.ranks.check_same(weights, when=f"step {self.num_timesteps}")
        state = self.learner_state()
        if self.ranks.is_main:
            write(Path(folder), self.header(), spaces, weights, state)

    def header(self) -> dict[str, Any]:
        """The plain values of a checkpoint, beside its tensors and spaces."""
        return {
            "agent": self.name,
            "rlmin": __version__,
            "env": self.env_spec,
            "seed": self.seed,
            "config": self.config.to_saved(),
            "run": self.run,
            "num_timesteps": self.num_timesteps,
            "num_updates": self.num_updates,
            "seconds": self.seconds,
            "total_timesteps": self.total_timesteps,
        }

    @checked
    def resume(self, folder: str | Path) -> None:
        """Continue where the agent saved in `folder` stopped.

        Weights, optimizer, counters, normalisers and random numbers are restored; with an environment that can be put
        into a state (`get_state`, `set_state`) so are memory and environment, and training continues bit for bit. Other
        environments begin new episodes. Logged data always continue bit for bit.

        Raises:
            ValueError: the folder cannot be read; see `rlmin.load`.
        """
        header, tensors = read(Path(folder), LEARNER)
        self.ready()  # so that its state can be restored
        self.restore(header, tensors)

    @classmethod
    @accept_names(path="folder")
    def load(
        cls,
        folder: str | Path,
        env: Any = None,
        *,
        device: torch.device | str = "cpu",
        trust: bool = False,
        custom_objects: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """The agent saved in `folder`, with other settings if some are given.

        Args:
            folder, env, device, trust: see `rlmin.load`.
            custom_objects: settings too; the name is stable-baselines3's. One of 0 stands there for what Python cannot
                unpickle, and changes nothing here.
            settings: of the agent, or stable-baselines3's names of them; also `verbose` and `tensorboard_log`.

        Raises:
            ValueError: see `rlmin.load`; it was trained by another algorithm, or the settings do not fit.
        """
        agent = restore(AGENTS, folder, device=device, trust=trust)
        if not isinstance(agent, cls):
            raise ValueError(f"{folder}: expected an agent of kind {cls.name!r}, found {agent.name!r}")
        agent.adopt({**without_stand_ins(custom_objects or {}), **settings}, env)
        if env is not None:
            agent.set_env(env)
        return agent

    def restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        """Take over the counters, weights and learner state of a checkpoint that has been read.

        Raises:
            ValueError: the weights or the learner state do not fit this agent; nothing has changed.
        """
        weights = policy_weights(tensors)
        wanted = {name: x.shape for name, x in self.policy.state_dict().items()}
        if wanted != {name: x.shape for name, x in weights.items()}:
            made, found = self.config.to_saved(), header["config"]
            made = {key: list(x) if isinstance(x, tuple) else x for key, x in made.items()}  # as in a file
            differ = [f"{key}={found.get(key)} there, {made[key]} here" for key in made if found.get(key) != made[key]]
            raise ValueError(f"the weights belong to another policy: {', '.join(differ) or 'other spaces'}")
        check_weights(self.policy, weights)
        if len(tensors) > len(weights):
            check_learner(self, tensors)
        self.policy.load_state_dict(weights)
        self.num_timesteps, self.num_updates = header["num_timesteps"], header["num_updates"]
        self.total_timesteps, self.run = header["total_timesteps"], header.get("run", {})
        self.seconds = header.get("seconds", 0.0)
        if len(tensors) > len(weights):
            self.load_learner_state(tensors)

    @property
    def logger(self) -> "Logger":
        """Stable-baselines3's logger; without `set_logger` it writes nowhere."""
        if self._logger is None:
            from stable_baselines3.common.logger import Logger

            self._logger, self._opened_logger = Logger(folder=None, output_formats=[]), True
        return self._logger

    def set_logger(self, logger: "Logger") -> None:
        """Log to `logger` from now on.

        Raises:
            TypeError: it is not a Logger of stable-baselines3, and does not behave like one.
        """
        if not all(hasattr(logger, name) for name in ("record", "dump")):
            raise TypeError(f"logger: expected a stable-baselines3 Logger, got {type(logger).__name__}")
        self._logger, self._opened_logger = logger, False
