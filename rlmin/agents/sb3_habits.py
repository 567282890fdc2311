"""What scripts and callbacks written for stable-baselines3 read and set on an agent, under the names used there."""

import functools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from rlmin.agents.sb3_form import convert_settings
from rlmin.agents.schema import policy_weights
from rlmin.checks import warn_user
from rlmin.distributed import Ranks
from rlmin.learning.rollout import Collector
from rlmin.policy import PolicyConfig
from rlmin.runs.checkpoint import find_folder, read_newest
from rlmin.settings import field_types
from rlmin.settings.sb3_answers import OF_AGENT, missing
from rlmin.settings.sb3_convert import Schedule
from rlmin.settings.sb3_names import SB3_NAMES

NETWORK = {field.name for field in fields(PolicyConfig)} - {"dropout"}
"""Settings that the weights in a file were made with."""


@functools.cache
def names_of_settings(kind: Any) -> frozenset[str]:
    """Settings of an agent, and stable-baselines3's names of them."""
    return frozenset(field_types(kind)) | (frozenset(SB3_NAMES) - {"policy"})


def draw_seed() -> int:
    """A seed that nobody chose."""
    return int(torch.randint(2**31, ()).item())


class Habits:
    """What every agent has."""

    settings: ClassVar[Any]
    policy: Any
    optimizer: Any
    config: Any
    num_timesteps: int
    total_timesteps: int
    num_updates: int
    seed: int
    ranks: Ranks
    generator: torch.Generator
    device: torch.device
    verbose: int = 0
    tensorboard_log: str | Path | None = None
    _logger: Any
    _opened_logger: bool = False  # by `learn`, which then opens another the next time
    get_env: Callable[[], Any]
    schedules: dict[str, Schedule] = MappingProxyType({})  # type: ignore[assignment]

    use_sde = False

    def __getattr__(self, name: str) -> Any:
        ours = {name: f"it is `agent.config.{name}`"} if name in field_types(type(self).settings) else {}
        raise AttributeError(missing(type(self).__name__, name, {**OF_AGENT, **ours}, dir(self)))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would have no effect: a setting that is no attribute, under any of its names."""
        if name in names_of_settings(type(self).settings) and not hasattr(type(self), name):
            hint = f"`agent.change_settings({{{name!r}: {value!r:.40}}})` changes one"
            raise AttributeError(f"{name}: an agent's settings are in `agent.config`; {hint}")
        super().__setattr__(name, value)

    @property
    def observation_space(self) -> Any:
        """What the policy sees."""
        return self.policy.observation_space

    @property
    def action_space(self) -> Any:
        """What the policy does."""
        return self.policy.action_space

    @property
    def n_envs(self) -> int:
        """B: environments, or rows of a batch of logged steps."""
        return int(getattr(self.config, "num_envs", getattr(self.config, "rows", 1)))

    @property
    def env(self) -> Any:
        """As `get_env`."""
        return self.get_env()

    @property
    def gamma(self) -> float:
        """Discount a step."""
        return float(self.config.gamma)

    @property
    def learning_rate(self) -> float:
        """Learning rate at the start of training."""
        return float(self.config.lr)

    @property
    def _current_progress_remaining(self) -> float:
        return 1 - self.num_timesteps / max(self.total_timesteps, 1)

    @property
    def _total_timesteps(self) -> int:
        return self.total_timesteps

    @property
    def _n_updates(self) -> int:
        return self.num_updates

    def open_logger(self, name: str, new: bool) -> None:
        """Log where `verbose` and `tensorboard_log` say, unless `set_logger` said where.

        Args:
            name: of the run in the folder of events.
            new: whether a run begins; False goes on with the last one of that name.
        """
        wanted = self.ranks.is_main and (self.verbose or self.tensorboard_log is not None)
        if wanted and (self._logger is None or self._opened_logger):
            from stable_baselines3.common.utils import configure_logger

            folder = None if self.tensorboard_log is None else str(self.tensorboard_log)
            self._logger, self._opened_logger = configure_logger(self.verbose, folder, name, new), True

    def warn_of_schedules(self) -> None:
        """Warn of schedules that a file cannot hold."""
        for name in self.schedules:
            first, last = getattr(self.config, name), getattr(self.config, f"{name}_final")
            hint = f"loaded, {name} goes linearly from {first:g} to {last:g}; give it to `load` again"
            warn_user(f"the schedule of {name} is a function, which is not saved: {hint}")

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Weights and normalisers as "policy", and the optimizer's moments as "policy.optimizer"."""
        return {"policy": self.policy.state_dict(), "policy.optimizer": self.optimizer.state_dict()}

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = None) -> None:
        """Take over what `get_parameters` gave, or the weights saved in a folder.

        Args:
            load_path_or_dict: of `get_parameters`, or the folder of an agent.
            exact_match: whether every part and every tensor has to be there.
            device: no effect; tensors go where the agent's are.

        Raises:
            ValueError: a part is unknown or missing, or tensors do not fit.
        """
        given = load_path_or_dict
        if not isinstance(given, Mapping):
            given = {"policy": policy_weights(read_newest(find_folder(given))[1])}
        elif exact_match and set(given) != {"policy", "policy.optimizer"}:
            raise ValueError(f"parameters: expected policy and policy.optimizer, got {', '.join(given)}")
        unknown = set(given) - {"policy", "policy.optimizer"}
        if unknown:
            raise ValueError(f"parameters: expected policy and policy.optimizer, got {', '.join(sorted(unknown))}")
        try:
            self.policy.load_state_dict(given.get("policy", self.policy.state_dict()), strict=exact_match)
        except RuntimeError as error:
            raise ValueError(f"parameters: {error}") from None
        if "policy.optimizer" in given:
            self.optimizer.load_state_dict(given["policy.optimizer"])

    def adopt(self, given: Mapping[str, Any], env: Any = None) -> None:
        """Take over the arguments of `load` beside the folder, the environment among them; see there."""
        rest = {name: x for name, x in given.items() if name not in ("print_system_info", "force_reset")}
        self.verbose = rest.pop("verbose", self.verbose)
        self.tensorboard_log = rest.pop("tensorboard_log", self.tensorboard_log)
        if rest:
            self.change_settings(rest, num_envs=self.rows_in(env))

    def rows_in(self, env: Any) -> int:
        """B of an environment; an id or None makes as many as before."""
        return self.n_envs if env is None or isinstance(env, str) else int(getattr(env, "num_envs", 1))

    def change_settings(self, given: Mapping[str, Any], *, num_envs: int | None = None) -> None:
        """See `PPOHabits.change_settings`; other agents go on with the settings they were made with."""
        raise ValueError(f"no setting {next(iter(given))!r} of an agent that is loaded: it has those it was made with")

    def get_vec_normalize_env(self) -> Any:
        """None: rlmin normalises inside the policy, not in an environment wrapper."""
        return None

    def set_random_seed(self, seed: int | None = None) -> None:
        """Begin the random numbers of the sampled actions anew; environments keep theirs."""
        self.generator.manual_seed(draw_seed() if seed is None else seed)


class Named:
    """A setting of PPO under stable-baselines3's name."""

    def __init__(self, read: Callable[[Any], Any], *, fixed: bool = False) -> None:
        self.read, self.fixed = read, fixed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, agent: Any, owner: type | None = None) -> Any:
        return self if agent is None else self.read(agent)

    def __set__(self, agent: Any, value: Any) -> None:
        if self.fixed:
            raise AttributeError(f"{self.name}: a rollout keeps its size; load the agent with {self.name}={value!r}")
        agent.change_settings({self.name: value})


class PPOHabits(Habits):
    """What PPO has beyond that."""

    advantages: Any
    collector: Collector
    measured: Mapping[str, float] = MappingProxyType({})  # by the last update
    began: float  # of learning, on `time.perf_counter`, interruptions not counted
    _vector: Any
    attach: Callable[[Any], None]
    write_log: Callable[[], None]

    learning_rate = Named(lambda agent: agent.config.lr)
    lr_schedule = Named(lambda agent: lambda remaining: agent.setting_at(1 - remaining, "lr"))
    clip_range = Named(lambda agent: lambda remaining: agent.setting_at(1 - remaining, "clip"))
    clip_range_vf = Named(lambda agent: agent.config.value_clip)
    ent_coef = Named(lambda agent: agent.config.entropy)
    vf_coef = Named(lambda agent: agent.config.value_weight / 2)
    gae_lambda = Named(lambda agent: agent.config.lam)
    gamma = Named(lambda agent: agent.config.gamma)
    max_grad_norm = Named(lambda agent: agent.config.max_grad_norm)
    target_kl = Named(lambda agent: agent.config.target_kl)
    normalize_advantage = Named(lambda agent: agent.config.normalize_advantage)
    n_epochs = Named(lambda agent: agent.config.epochs)
    n_steps = Named(lambda agent: agent.config.horizon, fixed=True)
    batch_size = Named(
        lambda agent: agent.config.horizon * agent.n_envs // agent.config.minibatches_of(agent.n_envs), fixed=True
    )

    @property
    def env(self) -> Any:
        """The environment trained in; None where none was given since the agent was loaded."""
        return None if self._vector is None else self._vector.env

    @property
    def ep_info_buffer(self) -> deque[dict[str, Any]]:
        """Return "r" and length "l" of the last 100 episodes; what else a Monitor noted is in `infos`."""
        finished = self.collector.statistics.finished
        return deque(({"r": one.return_, "l": one.length} for one in finished), maxlen=finished.maxlen)

    @property
    def ep_success_buffer(self) -> deque[bool]:
        """Whether each of the last 100 episodes succeeded, as far as the environment reports it."""
        finished = self.collector.statistics.finished
        return deque((one.success for one in finished if one.success is not None), maxlen=finished.maxlen)

    def adopt(self, given: Mapping[str, Any], env: Any = None) -> None:
        """See `Habits.adopt`; with another number of environments a minibatch keeps its size."""
        sized = self.config.minibatches is not None and self.rows_in(env) != self.n_envs
        size = {"batch_size": self.batch_size} if sized and not {"batch_size", "minibatches"} & set(given) else {}
        super().adopt({**size, **given}, env)

    @property
    def elapsed(self) -> float:
        """Seconds of learning so far, the present update included."""
        return time.perf_counter() - self.began

    def _setup_lr_schedule(self) -> None:
        """Nothing: a new `learning_rate` counts from the next update on."""

    def dump_logs(self, iteration: int = 0) -> None:
        """Write a row of the log: episodes, steps, speed, and what was recorded since the last one."""
        self.write_log()

    def change_settings(self, given: Mapping[str, Any], *, num_envs: int | None = None) -> None:
        """Learn with other settings from the next update on.

        Args:
            given: settings of PPO, or stable-baselines3's names of them.
            num_envs: B to which a `batch_size` refers; None: the present one.

        Raises:
            ValueError: no such setting, or one that the weights were made with.
        """
        config, schedules = convert_settings(given, self.config, num_envs or self.n_envs)
        for name in sorted(NETWORK):
            if getattr(config, name) != getattr(self.config, name):
                had = f"{name}={getattr(self.config, name)!r}"
                raise ValueError(f"{name}={getattr(config, name)!r}: the weights were made with {had}")
        changed = {f.name for f in fields(config) if getattr(config, f.name) != getattr(self.config, f.name)}
        self.schedules = {name: x for name, x in self.schedules.items() if name not in changed} | dict(schedules)
        self.config = self.advantages.config = config
        for group in self.optimizer.param_groups:
            group["betas"] = (0.9, config.beta2)
        if self._vector is not None and changed & {"horizon", "cuda_graph", "num_envs", "initial_state"}:
            self.config = replace(config, num_envs=self._vector.num_envs)
            self.attach(self._vector)
