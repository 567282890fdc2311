"""Acting in your own loop: a policy as a callable that keeps its memory and knows where episodes start.

    Actor       action = act(observation); `act.reset()`, or `start=`, says where an episode opens
    EnvActor    the same, bound to an environment, whose `reset` and `step` it has; it needs no further calls

How an `EnvActor` handles the three autoreset modes of a vector environment:

    NEXT_STEP   the call after an end ignores its action and resets; its observation opens an episode
    SAME_STEP   the observation of an ending step opens an episode
    DISABLED    the observation of `reset(options={"reset_mask": rows})` opens an episode in these rows

Both act as `rlmin.evaluation.evaluate` does: the same actions, for the same seeds.
"""

import math
from collections.abc import Sequence
from typing import Any, overload

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from rlmin.policy.fit import check_fit, is_conditioned
from rlmin.policy.policy import Policy
from rlmin.policy.predict import PolicyState, predict
from rlmin.settings import Positive, Seed
from rlmin.settings.boundary import checked
from rlmin.spaces import leaf_spaces, leaves_of, pick, without
from rlmin.vector import MASK
from rlmin.vector.gym import autoreset_mode
from rlmin.wrappers.previous import as_leaf
from rlmin.wrappers.return_to_go import RETURN_TO_GO
from rlmin.wrappers.transform import with_entry, with_leaf

NO_TARGET = "this policy is return-conditioned: give it a target, actor(target_return=...), env units"


@overload
def make_actor(policy: Policy, env: None = None, **options: Any) -> "Actor": ...
@overload
def make_actor(policy: Policy, env: Any, **options: Any) -> "EnvActor": ...
def make_actor(policy: Policy, env: Any = None, **options: Any) -> "Actor | EnvActor":
    """A policy as a callable that keeps its memory.

    Args:
        policy: the policy; nothing is trained.
        env: a gymnasium Env or VectorEnv to act in: `act.reset()`, then `act.step()`; None: `act(observation)`.
        options: `deterministic=True`, `target_return=None`, `return_scale=1.0`, `seed=None`; see `Actor`.

    Raises:
        TypeError, ValueError: see `EnvActor`.
    """
    act = Actor(policy, **options)
    return act if env is None else EnvActor(env, act)


class Actor:
    """A policy that maps an observation to an action, and keeps its memory and last action itself.

    Args:
        policy: the policy; nothing is trained.
        deterministic: the most likely action instead of a sample.
        target_return: target of a return-conditioned policy, one number or one a row, env units. It
            is counted down by the rewards as in the wrapper `ReturnToGo`. None: the observation contains it.
        default_target: the target if there is no `target_return` and none in the observation.
        return_scale: env units that the policy sees as 1.
        seed: of sampled actions; None: any.

    Attributes:
        state: the state that `rlmin.policy.predict.predict` returned last; None before the first step.

    Raises:
        ValueError: a target for a policy that takes none.
    """

    @checked
    def __init__(
        self,
        policy: Policy,
        *,
        deterministic: bool = True,
        target_return: float | Sequence[float] | None = None,
        default_target: float | None = None,
        return_scale: Positive = 1.0,
        seed: Seed | None = None,
    ) -> None:
        target = default_target if target_return is None else target_return
        if target is not None and not is_conditioned(policy):
            raise ValueError(f"target_return={target}: this policy is not return-conditioned")
        self.policy, self.deterministic = policy, deterministic
        self.target = None if target is None else np.asarray(target, dtype=np.float64)
        self.is_default = target_return is None  # a target in the observation takes precedence
        self.return_scale = return_scale
        self.generator = torch.Generator(policy.device)
        self.generator.manual_seed(self.generator.seed() if seed is None else seed)
        self.state: PolicyState | None = None
        self._opens: np.ndarray[Any, Any] = np.array(True)  # [] or [B]: the next observation opens an episode
        self._left: np.ndarray[Any, Any] | None = None  # [] or [B]: the rest of the target before the last action

    def reset(self, rows: Any = None) -> None:
        """Announce that the next observation opens an episode.

        Args:
            rows: [B] bool, only in these; None: everywhere, and the number of rows may change.

        Raises:
            ValueError: rows are not flags (indices are not), or not one flag a row.
        """
        if rows is None:
            self.state, self._left, self._opens = None, None, np.array(True)
        else:
            self._opens = self._merge_starts("rows", rows)

    def __call__(
        self, observation: Any, *, reward: Any = None, start: Any = None, action_mask: Any = None
    ) -> np.ndarray[Any, Any]:
        """Choose actions.

        Args:
            observation: as the environment gives it: one, or a batch [B, ...].
            reward: [B] (or a number) the reward of the last action, env units; except where an episode opens, needed by
                a policy that reads the previous reward or counts down a target.
            start: [B] bool (or one), the observation opens an episode; None: only after `reset`.
            action_mask: as for `rlmin.policy.predict.predict`.

        Returns:
            actions in the environment's own form, without B for a single observation.

        Raises:
            ValueError, FloatingPointError: see `rlmin.policy.predict.predict`; a return-conditioned policy
                has no target, two targets, or no reward to count it down. The memory is unchanged.
        """
        opens = self._opens if start is None else self._merge_starts("start", start)
        left = self._count_down(observation, reward, opens)
        if left is not None:
            observation = with_entry(observation, RETURN_TO_GO, as_leaf(left / self.return_scale))
        action, state = predict(
            self.policy,
            observation,
            self.state,
            self._start(opens),
            self.deterministic,
            reward=reward,
            action_mask=action_mask,
            generator=self.generator,
        )
        _check_rows("start", opens, len(state[1]))
        self.state, self._left, self._opens = state, left, np.array(False)
        return action

    def _merge_starts(self, name: str, flags: Any) -> np.ndarray[Any, Any]:
        """[] or [B]: where the next observation opens an episode, with these flags added."""
        given = np.asarray(flags.detach().cpu() if isinstance(flags, Tensor) else flags)
        if given.dtype != np.bool_:
            raise ValueError(
                f"{name}: expected flags, bool [B], got {given.dtype} {given.tolist()}; True opens an episode"
            )
        known = self._opens.size if self._opens.ndim else given.size
        _check_rows(name, given, known if self.state is None else len(self.state[1]))
        return _flags(self._opens | given)

    def _start(self, opens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        """The flags for `predict`, one a row; None before the number of rows is known."""
        if self.state is None:
            return None
        return opens if opens.ndim else np.full(len(self.state[1]), opens)

    def _count_down(self, observation: Any, reward: Any, opens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        """[] or [B] float64: the return still to come; None where there is no target."""
        brought = isinstance(observation, dict) and RETURN_TO_GO in observation
        if self.target is None:
            if is_conditioned(self.policy) and not brought:
                raise ValueError(NO_TARGET)
            return None
        if brought and self.is_default:
            return None
        if brought:
            raise ValueError(f"the observation has a {RETURN_TO_GO!r} of its own; leave target_return out")
        lead = self._lead(observation)
        if self.target.shape not in ((), lead):
            raise ValueError(f"target_return: expected one, or {list(lead)}, got {list(self.target.shape)}")
        target = np.broadcast_to(self.target, lead)
        if self._left is None or self._left.shape != lead:
            return target
        if reward is None and not opens.all():
            raise ValueError("a target is counted down by the rewards; pass reward=, the reward of the last action")
        earned = _array(0.0 if reward is None else reward, np.float64)
        if earned.size not in (1, math.prod(lead)):
            raise ValueError(f"reward: expected {list(lead)}, got {list(earned.shape)}")
        return np.where(opens, target, self._left - earned.reshape(lead if earned.size > 1 else ()))

    def _lead(self, observation: Any) -> tuple[int, ...]:
        """() for a single observation, (B,) for a batch."""
        leaf = next(leaf for leaf in leaves_of(self.policy.acting_space) if leaf.name != RETURN_TO_GO)
        seen = pick(with_entry(observation, RETURN_TO_GO, None), leaf.path)
        return tuple(np.shape(seen))[: np.ndim(seen) - len(leaf.shape)]


class EnvActor:
    """A policy that acts in one environment, or in a vector of them.

        observation, info = act.reset(seed=0)
        observation, reward, terminated, truncated, info = act.step()        # chooses act.action, and takes it

    Args:
        env: a gymnasium Env or VectorEnv with the policy's spaces and any wrappers; the actor changes nothing about
            who resets ended episodes.
        actor: chooses the actions.

    Attributes:
        action: the last action, in the form that the environment received.

    Raises:
        TypeError: not an environment of gymnasium.
        ValueError: its spaces differ from the policy's, or a return-conditioned policy has no target.
    """

    def __init__(self, env: Any, actor: Actor) -> None:
        if not isinstance(env, gym.Env | VectorEnv):
            raise TypeError(
                f"actor: expected a gymnasium Env or VectorEnv, got {type(env).__module__}.{type(env).__name__}"
            )
        self.env, self.actor = env, actor
        self.action: Any = None
        self.mode = autoreset_mode(env) if isinstance(env, VectorEnv) else None
        self.rows = (env.num_envs,) if isinstance(env, VectorEnv) else ()
        observed = env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space
        brought = RETURN_TO_GO in leaf_spaces(observed)
        if actor.target is not None and not (brought and actor.is_default):
            observed = with_leaf(observed, RETURN_TO_GO, gym.spaces.Box(-np.inf, np.inf, (1,), np.float32))
        elif is_conditioned(actor.policy) and not brought:
            raise ValueError(NO_TARGET)
        check_fit(
            actor.policy,
            without(observed, MASK),
            env.single_action_space if isinstance(env, VectorEnv) else env.action_space,
        )
        self._observation: Any = None
        self._reward: Any = None
        self._ended = np.zeros(self.rows, dtype=bool)
        self._mask: np.ndarray[Any, Any] | None = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The environment's `reset`: new episodes everywhere, or in the rows of `options["reset_mask"]`."""
        rows = None if self.mode is not AutoresetMode.DISABLED else (options or {}).get("reset_mask")
        rows = None if rows is None else _flags(rows).copy()  # gymnasium takes it out of the options
        self._observation, info = self.env.reset(seed=seed, options=options)
        self.actor.reset(rows)
        self._ended = np.zeros(self.rows, dtype=bool) if rows is None else self._ended & ~rows
        self._mask = self._masks(info, before=None if rows is None else self._mask)
        return self._observation, info

    def step(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Choose actions and take them; returns the result of the environment's `step`.

        Raises:
            RuntimeError: nothing was reset, or the episode of a single environment is over.
            ValueError, FloatingPointError: see `Actor`.
        """
        if self._observation is None or (self.mode is None and self._ended.any()):
            raise RuntimeError(
                "call reset() first" if self._observation is None else "the episode is over: call reset()"
            )
        action = self.actor(self._observation, reward=self._reward, action_mask=self._mask)
        self.action = torch.as_tensor(action) if isinstance(self._observation, Tensor) else action
        observation, reward, terminated, truncated, info = self.env.step(self.action)
        ended = _flags(terminated) | _flags(truncated)
        if self.mode is AutoresetMode.NEXT_STEP:  # rows that ended one step earlier only reset
            ended &= ~self._ended
            self.actor.reset(self._ended)
        elif self.mode is AutoresetMode.SAME_STEP:
            self.actor.reset(ended)
        self._observation, self._reward, self._ended = observation, reward, ended
        self._mask = self._masks(info, before=None)
        return observation, reward, terminated, truncated, info

    def _masks(self, info: dict[str, Any], *, before: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
        """Legal actions by info: [A], or [B, A], where rows without a mask keep `before`, or allow everything."""
        value, flags = info.get(MASK), self.actor.policy.action_head.mask_size
        if value is None or not flags:
            return None
        if self.mode is None:
            return _flags(value)
        given = _flags(info.get(f"_{MASK}", np.ones(self.rows, dtype=bool)))
        mask = np.ones((*self.rows, flags), dtype=bool) if before is None else before.copy()
        for row in given.nonzero()[0]:  # for lists it is an array of objects
            mask[row] = np.ravel(_flags(value[row]))
        return mask


def _check_rows(name: str, flags: np.ndarray[Any, Any], rows: int) -> None:
    if flags.shape not in ((), (rows,)):
        raise ValueError(f"{name}: expected one flag, or [{rows}] as in the observation, got {list(flags.shape)}")


def _array(x: Any, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    return np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=dtype)


def _flags(x: Any) -> np.ndarray[Any, Any]:
    return _array(x, np.bool_)
