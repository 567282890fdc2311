"""Any vector environment as one stream of `Step` records on the right device.

    source                       after an end                               action here
    gymnasium NEXT_STEP          the next call ignores its action, resets   that call is a row with `filler` set
    gymnasium SAME_STEP          the observation is already the reset one   `final_observation` from infos["final_obs"]
    gymnasium DISABLED           nothing                                    the ended rows are reset at once
    stable-baselines3 VecEnv     as SAME_STEP, one dict of infos a row      see sb3.py
    one gym.Env                  nothing                                    B = 1, run in SAME_STEP

Observations that are torch tensors already (native environments) stay tensors: no numpy round trip.

Tensors on a GPU are not checked if a check would make the GPU wait: whether numbers are finite, whether choices exist,
and whether a SAME_STEP environment gave the final observation of every ended row. If it gave none at all,
`final_observation` is None.

Some environments report "is_success" only if it is true. From the first report of any environment on, a missing entry
counts as False; until then success is unknown.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from rlmin.spaces import leaf_tensor, leaves_of, require_leaf, without
from rlmin.types import Observation, Step
from rlmin.vector.deadline import end_processes, limit_time
from rlmin.vector.faults import EnvError, in_words, is_raised_in
from rlmin.vector.make import existing

GRACE = 10.0
"""Seconds that an environment may take to close after it did not answer."""
MASK = "action_mask"
SUCCESS = ("is_success", "success")
LARGEST_REWARD = 1e18
"""Returns above this have infinite squares in float32."""


class Vector(ABC):
    """B environments that answer actions with `Step` records.

    Attributes:
        env: the vector environment inside.
        num_envs: B.
        device: device of every tensor of a `Step`.
        observation_space, action_space: of one environment; an `action_mask` entry is taken out of the former.
        mode: kind of environment, in words.
    """

    def __init__(
        self,
        env: Any,
        *,
        num_envs: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        mode: str,
        device: torch.device | str,
        seed: int | None,
    ) -> None:
        self.env = env
        self.num_envs = num_envs
        self.device = existing(device)
        self.observation_space = without(observation_space, MASK)
        self.action_space = action_space
        self.mode = mode
        self._leaves = leaves_of(self.observation_space)
        self._mask_observed = self.observation_space is not observation_space
        self._masked: bool | None = None  # whether infos have masks; the first reset decides
        self._tells_success = False  # whether any infos so far reported success
        self._flags = _flags(action_space)
        self._seed = seed  # of the first reset
        self.heard: tuple[Any, Any] = (None, {})  # raw observation and infos of the latest reset or step
        self.limit: float | None = None  # seconds that a call of `env` may take, see `rlmin.vector.deadline`
        self._failed = False  # whether such a call took longer
        self._steps = -1  # since the last reset; -1 before the first

    @property
    def truncates(self) -> bool:
        """Whether an episode may be truncated, as far as is known: False only for native games that never do it."""
        return True

    @property
    def fills(self) -> bool:
        """Whether there may be filler rows."""
        return True

    @abstractmethod
    def reset(self, seed: int | None = None) -> Step:
        """Open an episode in every environment.

        Args:
            seed: environment i gets seed + i (a vectorised environment decides itself); None continues its random
                stream, or at the first reset uses the seed given to `adapt`.

        Returns:
            `start` and `filler` all True (no transition took place), reward 0.
        """

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Take one action in every environment.

        Args:
            action: [B, *action_shape] in the env's own format, a Discrete action including the space's `start`.

        Raises:
            ValueError: the action, or a result of the env, has another shape or type than its space declares.
            EnvError: the environment raised another error, or its process failed.
            FloatingPointError: an observation or reward is NaN or infinite (not checked for tensors on a GPU).
        """

    @abstractmethod
    def infos(self, step: Step) -> list[dict[str, Any]]:
        """The infos of the latest step: a dict for each environment, as in stable-baselines3.

        After the end of an episode, they are those of its last step, with "terminal_observation" and
        "TimeLimit.truncated".
        """

    def close(self) -> None:
        """Close the environment inside; workers that no longer answer are stopped."""
        failed = self._failed  # then its own errors at the end say nothing new
        with suppress(Exception if failed else EnvError), limit_time(GRACE if failed else None, "close"):
            self.env.close()

    def _first_seed(self, seed: int | None) -> int | None:
        seed, self._seed, self._steps = (self._seed if seed is None else seed), None, 0
        return seed

    def _open_episodes(self, observation: Observation, mask: Tensor | None) -> Step:
        every = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        return Step(
            observation=observation,
            reward=torch.zeros(self.num_envs, device=self.device),
            terminated=~every,
            truncated=~every,
            start=every,
            filler=every.clone(),
            final_observation=None,
            action_mask=mask,
            success=None,
        )

    def _where(self) -> str:
        return f" at step {self._steps} since reset"

    def _check_action(self, action: Tensor) -> None:
        wanted = (self.num_envs, *(self.action_space.shape or ()))
        if self._steps < 0:
            raise RuntimeError("call reset() before step()")
        if tuple(action.shape) != wanted:
            raise ValueError(f"action: expected {list(wanted)}, got {list(action.shape)}")
        self._steps += 1

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`env.reset` or `env.step`; an error inside is reported with its step."""
        try:
            if self.limit is None:
                return function(*args, **kwargs)
            with limit_time(self.limit, f"{type(self.env.unwrapped).__name__}: {function.__name__}"):
                return function(*args, **kwargs)
        except EnvError as error:  # raised in a worker
            if self.limit is not None:  # its processes would be waited for at the end of this one
                self._failed = True
                end_processes(self.env)
            raise EnvError(f"{error}{self._where()}") from error.__cause__
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and is_raised_in(error, "rlmin"):
                raise  # the error of a signal's handler
            malformed = isinstance(error, ValueError | TypeError | KeyError)
            if malformed:
                self._name_bad_leaf()
            if malformed or is_raised_in(error, "gymnasium"):
                raise ValueError(
                    f"the environment's {function.__name__} failed{self._where()} ({type(error).__name__}: {error}); "
                    "a step returns (observation, reward, terminated, truncated, info), a reset (observation, info), "
                    "with one number as reward and observations as the space declares them"
                ) from error
            raise EnvError(  # any other error of its author's code
                f"{self._name_of_env(error)}: {function.__name__} failed{self._where()} ({in_words(error)})"
            ) from error

    def _name_of_env(self, error: BaseException) -> str:
        """The environment that raised it: its index, if they run one after the other, and its id."""
        spec = getattr(self.env, "spec", None)
        row = "" if (i := _place(error)) is None else f" {i}"
        return f"environment{row}" + (f" of {spec.id}" if isinstance(spec, EnvSpec) else "")

    def _name_bad_leaf(self) -> None:  # noqa: B027  (a hook)
        """Raise an error for a single observation that breaks its space, if single ones can be read."""

    def _observe(self, raw: Any, *, copy: bool = True) -> Observation:
        """The leaves of a batched raw observation, checked and on the device."""
        observation = {}
        for leaf in self._leaves:
            value = require_leaf(raw, leaf, self._where())
            tensor = leaf_tensor(value, leaf, self.num_envs, copy=copy, where=self._where())
            self._check_finite(f"observation {leaf.name!r}", tensor)
            observation[leaf.name] = tensor.to(self.device)
        return observation

    def _column(self, name: str, value: Any, dtype: torch.dtype) -> Tensor:
        """One number or flag per environment: [B]."""
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(self._array(name, value, dtype))
        if tuple(tensor.shape) != (self.num_envs,):
            raise ValueError(f"{name}: expected [B={self.num_envs}], got {list(tensor.shape)}{self._where()}")
        tensor = tensor.to(dtype)
        self._check_finite(name, tensor)
        if name == "reward":
            self._check_reward(tensor)
        return tensor.to(self.device)

    def _array(self, name: str, value: Any, dtype: torch.dtype) -> np.ndarray[Any, Any]:
        try:
            if isinstance(value, np.ndarray) and value.dtype != object:
                return np.array(value, dtype=bool if dtype == torch.bool else np.float32)
            if any(one is None for one in value):  # numpy would turn None into NaN or False
                raise TypeError("None is not a number")
            return np.array(value, dtype=bool if dtype == torch.bool else np.float32)
        except (TypeError, ValueError) as error:
            message = f"{name}: expected one number from each environment, got {value!r:.80}{self._where()}"
            raise ValueError(message) from error

    def _check_finite(self, name: str, tensor: Tensor, rows: list[int] | None = None) -> None:
        if tensor.device.type != "cpu" or not tensor.is_floating_point() or math.isfinite(tensor.sum().item()):
            return
        finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
        if not finite.all():  # otherwise only the sum overflowed
            row = int((~finite).nonzero()[0])
            source = row if rows is None else rows[row]
            raise FloatingPointError(f"{name}: NaN or inf from environment {source}{self._where()}")

    def _check_reward(self, reward: Tensor) -> None:
        if reward.device.type == "cpu" and not reward.abs().max().item() < LARGEST_REWARD:
            row = int(reward.abs().argmax())
            found = f"{float(reward[row]):g} from environment {row}{self._where()}"
            expected = f"expected less than {LARGEST_REWARD:g} in size, as losses are squares in float32"
            raise FloatingPointError(f"reward {found}: {expected}; scale the rewards")

    def _patch(self, observation: Observation, final: Any, rows: list[int]) -> Observation:
        """`observation` with `rows` replaced by the single raw observations `final[row]`."""
        result = {}
        for leaf in self._leaves:
            where = f" (state reached{self._where()})"
            parts = [np.asarray(require_leaf(final[row], leaf, f" from environment {row}{where}")) for row in rows]
            for row, part in zip(rows, parts, strict=True):
                if part.shape != leaf.shape:
                    leaf_tensor(part[None], leaf, 1, copy=True, where=where, rows=[row])
            tensor = leaf_tensor(np.stack(parts), leaf, len(rows), copy=False, where=where, rows=rows)
            self._check_finite(f"final observation of {leaf.name!r}", tensor, rows)
            result[leaf.name] = observation[leaf.name].clone()
            result[leaf.name][rows] = tensor.to(self.device)
        return result

    def _settle_success(self, reported: Tensor | None) -> Tensor | None:
        """[B] bool: the reports of infos, or False everywhere once there was a report."""
        self._tells_success = self._tells_success or reported is not None
        if reported is None and self._tells_success:
            return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return reported

    def _settle_mask(self, mask: Tensor | None, known: Tensor | None, excused: Tensor | None) -> Tensor | None:
        """The mask of every row, after checking that the env gives one always or never.

        `known` [B] marks rows that have one (None: all), `excused` [B] rows that need none (None: no row), because
        their episode is over and no action follows.
        """
        self._masked = mask is not None if self._masked is None else self._masked
        if self._masked != (mask is not None) and (excused is None or not bool(excused.all())):
            raise ValueError(f"infos[{MASK!r}] must be there in every reset and step or never{self._where()}")
        if mask is None:
            flags = (self.num_envs, self._flags or 1)
            return torch.ones(flags, dtype=torch.bool, device=self.device) if self._masked else None
        if self._flags is not None and mask.shape[1] != self._flags:
            raise ValueError(f"{MASK}: {self.action_space} needs {self._flags} flags, got {mask.shape[1]}")
        if known is None:
            return mask
        missing = ~known if excused is None else ~known & ~excused
        if bool(missing.any()):
            raise ValueError(f"infos[{MASK!r}]: none from environment {int(missing.nonzero()[0])}{self._where()}")
        return mask | ~known.unsqueeze(1)


def _place(error: BaseException) -> int | None:
    """The environment at which the loop of a SyncVectorEnv was; None if there was no such loop."""
    trace, file = error.__traceback__, inspect.getfile(SyncVectorEnv)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file and isinstance(trace.tb_frame.f_locals.get("i"), int):
            return int(trace.tb_frame.f_locals["i"])
        trace = trace.tb_next
    return None


def _flags(space: gym.Space[Any]) -> int | None:
    """Number of flags of an action mask; None if any number will do."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.MultiBinary | spaces.Box):
        return None
    raise ValueError(f"action space {space}: expected Discrete, MultiDiscrete, MultiBinary or Box")
