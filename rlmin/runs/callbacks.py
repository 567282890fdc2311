"""Callbacks: stable-baselines3's own classes, called from rlmin's training loop."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlmin.runs.callback_locals import Locals, PresentStep
from rlmin.types import Step

if TYPE_CHECKING:
    from stable_baselines3.common.callbacks import BaseCallback


class Hook:
    """The calls of the training loop; here each does nothing."""

    def on_rollout_start(self) -> None: ...

    def on_step(self, step: Step | None) -> bool:
        """After a step of the environments, or (None) a gradient step on logged data; returns whether to continue."""
        return True

    @property
    def wants_steps(self) -> bool:
        """Whether `on_step` does anything; if not, it is not called, and a rollout may be one CUDA graph."""
        return type(self).on_step is not Hook.on_step

    def on_rollout_end(self) -> None: ...

    def on_training_end(self) -> None: ...


class Hooks(Hook):
    """Several hooks, called in order."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self.hooks = hooks

    def on_rollout_start(self) -> None:
        for hook in self.hooks:
            hook.on_rollout_start()

    def on_step(self, step: Step | None) -> bool:
        answers = [hook.on_step(step) for hook in self.hooks]  # every hook, even after one has stopped
        return all(answers)

    @property
    def wants_steps(self) -> bool:
        return any(hook.wants_steps for hook in self.hooks)

    def on_rollout_end(self) -> None:
        for hook in self.hooks:
            hook.on_rollout_end()

    def on_training_end(self) -> None:
        for hook in self.hooks:
            hook.on_training_end()


class LoggedSteps:
    """The training environment for callbacks when an agent learns from data.

    Attributes:
        num_envs: logged steps of the last gradient step, as one call of `on_step` stands for that many steps.

    Everything else comes from the environment of the data, made on first use.
    """

    def __init__(self, env: Callable[[], Any]) -> None:
        self._make, self.num_envs = env, 0

    @cached_property
    def _env(self) -> Any:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


class CallbackHook(Hook):
    """A stable-baselines3 callback, given the local variables of that library's loop."""

    def __init__(self, callback: "BaseCallback", total: int) -> None:
        model: Any = callback.model
        self.callback, self.model, self.steps = callback, model, model.num_timesteps
        fixed = {"self": model, "total_timesteps": total, "callback": callback}
        self.present = PresentStep(model) if hasattr(model, "collector") else None
        self.locals = Locals(fixed, {} if self.present is None else self.present.entries())
        if self.present is not None:
            fixed |= {"env": model.env, "n_rollout_steps": model.config.horizon}
        callback.on_training_start(self.locals, {})  # type: ignore[arg-type]

    def on_rollout_start(self) -> None:
        if self.present is not None:
            self.present.count = -1
            for name, x in self.model.measured.items():  # which stable-baselines3 writes only after this rollout
                self.model.logger.record(f"train/{name}", x)
        self.callback.on_rollout_start()

    def on_step(self, step: Step | None) -> bool:
        if step is None:
            self.model.callback_env.num_envs = self.model.num_timesteps - self.steps
            self.steps = self.model.num_timesteps
        elif self.present is not None:
            self.present.take(step)
            self.locals.known = {}
        return self.callback.on_step()

    def on_rollout_end(self) -> None:
        self.callback.on_rollout_end()

    def on_training_end(self) -> None:
        self.callback.on_training_end()
        if hasattr(self.model, "callback_env"):
            self.model.callback_env = None


def start_callback(agent: Any, callback: Any, total: int) -> Hook:
    """Begin training under `callback`.

    Args:
        agent: model of the callback.
        callback: None, a `Hook`, a stable-baselines3 callback, function(locals, globals) -> bool, or a list of them.
        total: steps at which training ends.

    Raises:
        TypeError: any other object.
        ValueError: the agent is trained by several processes, and the callback is no `Hook`.
    """
    if callback is None:
        return Hook()
    if isinstance(callback, Hook):
        return callback
    if not agent.ranks.is_alone:
        reason = "it would save or stop in one of them while the others wait"
        raise ValueError(f"callback: {agent.ranks.size} processes train this agent, and take none, as {reason}")
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

    def convert(one: Any) -> BaseCallback:
        if isinstance(one, BaseCallback):
            return one
        if isinstance(one, list | tuple):
            return CallbackList([convert(part) for part in one])
        if callable(one) and not isinstance(one, type):
            return ConvertCallback(one)
        found = f"the class {one.__name__}; make one, {one.__name__}(...)" if isinstance(one, type) else repr(one)
        raise TypeError(f"callback: expected a stable-baselines3 callback, a list or a function, got {found}")

    callback = convert(callback)
    if hasattr(agent, "callback_env"):
        agent.callback_env = None
        agent.callback_env = LoggedSteps(agent.own_env)
    with warnings.catch_warnings():  # EvalCallback warns of environments that are not stable-baselines3's
        warnings.filterwarnings("ignore", "Training and eval env are not of the same type", UserWarning)
        callback.init_callback(agent)
    return CallbackHook(callback, total)
