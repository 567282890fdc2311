"""Callbacks: stable-baselines3's own classes, run from rlmin's training loop."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlmin.types import Step

if TYPE_CHECKING:
    from stable_baselines3.common.callbacks import BaseCallback


class Hook:
    """What the training loop calls; here every call does nothing."""

    def on_rollout_start(self) -> None: ...

    def on_step(self, step: Step | None) -> bool:
        """After a step of the environments, or (None) a gradient step on logged data; whether to go on."""
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
        answers = [hook.on_step(step) for hook in self.hooks]  # every hook is called, whatever the others say
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
    """What callbacks take for the environment trained in where an agent learns from data.

    Attributes:
        num_envs: logged steps of the last gradient step, since a call of `on_step` stands for so many steps.

    Everything else is that of the environment the data come from, made when something of it is first asked for.
    """

    def __init__(self, env: Callable[[], Any]) -> None:
        self._make, self.num_envs = env, 0

    @cached_property
    def _env(self) -> Any:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


class CallbackHook(Hook):
    """A stable-baselines3 callback, given the local variables its classes read."""

    def __init__(self, callback: "BaseCallback", total: int) -> None:
        self.callback, self.locals = callback, {"total_timesteps": total}
        self.steps = callback.model.num_timesteps
        callback.on_training_start(self.locals, {})

    def on_rollout_start(self) -> None:
        self.callback.on_rollout_start()

    def on_step(self, step: Step | None) -> bool:
        if step is None:
            model: Any = self.callback.model
            model.callback_env.num_envs, self.steps = model.num_timesteps - self.steps, model.num_timesteps
            return self.callback.on_step()
        done = (step.terminated | step.truncated).cpu().numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(len(done))]
        if step.success is not None:
            for row in done.nonzero()[0]:
                infos[row]["is_success"] = bool(step.success[row])
        self.callback.update_locals({"dones": done, "rewards": step.reward.cpu().numpy(), "infos": infos})
        return self.callback.on_step()

    def on_rollout_end(self) -> None:
        self.callback.on_rollout_end()

    def on_training_end(self) -> None:
        self.callback.on_training_end()
        if hasattr(self.callback.model, "callback_env"):
            self.callback.model.callback_env = None


def start_callback(agent: Any, callback: Any, total: int) -> Hook:
    """Begin training under `callback`.

    Args:
        agent: handed to the callback as its model.
        callback: None, a `Hook`, a stable-baselines3 callback, function(locals, globals) -> bool, or a list of these.
        total: steps at which training ends.

    Raises:
        TypeError: something else.
    """
    if callback is None:
        return Hook()
    if isinstance(callback, Hook):
        return callback
    from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

    def convert(one: Any) -> BaseCallback:
        if isinstance(one, BaseCallback):
            return one
        if isinstance(one, list):
            return CallbackList([convert(part) for part in one])
        if callable(one):
            return ConvertCallback(one)
        raise TypeError(f"callback: expected a stable-baselines3 callback, a list or a function, got {one!r}")

    callback = convert(callback)
    if hasattr(agent, "callback_env"):
        agent.callback_env = None
        agent.callback_env = LoggedSteps(agent.own_env)
    with warnings.catch_warnings():  # EvalCallback's, which is meant for agents that know stable-baselines3's own only
        warnings.filterwarnings("ignore", "Training and eval env are not of the same type", UserWarning)
        callback.init_callback(agent)
    return CallbackHook(callback, total)
