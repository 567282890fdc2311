"""`self.locals` of a stable-baselines3 callback: the local variables of that library's training loop.

An entry is computed when a callback reads it. A callback that reads none costs only its call.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy as np

from rlmin.settings.sb3_answers import OF_LOCALS
from rlmin.types import Step
from rlmin.vector.infos import as_numpy


class Locals(MutableMapping[str, Any]):
    """A mapping with fixed entries, and entries computed for each step.

    Args:
        fixed: the fixed entries.
        of_step: name -> function without arguments that computes an entry of the present step.
    """

    def __init__(self, fixed: dict[str, Any], of_step: dict[str, Callable[[], Any]]) -> None:
        self.fixed, self.of_step = fixed, of_step
        self.known: dict[str, Any] = {}  # of the present step, as far as they were read

    def __getitem__(self, name: str) -> Any:
        for found in (self.known, self.fixed):
            if name in found:
                return found[name]
        if name not in self.of_step:
            hint = OF_LOCALS.get(name) or f"rlmin's callbacks have {', '.join(self)}"
            raise KeyError(f"{name}: {hint}")
        self.known[name] = self.of_step[name]()
        return self.known[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.known[name] = value

    def __delitem__(self, name: str) -> None:
        del (self.known if name in self.known else self.fixed)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.fixed, *self.of_step, *self.known]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.fixed or name in self.of_step or name in self.known


class PresentStep:
    """Facts about the step just taken, under stable-baselines3's names.

    Args:
        agent: acts and learns in environments.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.count = -1  # steps of this rollout before the present one
        self.step: Any = None
        self.ended: Any = None

    def take(self, step: Step) -> None:
        """Make `step` the present one, without computing anything."""
        self.step, self.count = step, self.count + 1
        pending = self.agent.collector.statistics.pending
        self.ended = pending[-1] if pending else None

    def entries(self) -> dict[str, Callable[[], Any]]:
        """Name -> function that computes it."""
        return {
            "n_steps": lambda: self.count,
            "rewards": lambda: self.step.reward.cpu().numpy(),
            "dones": lambda: (self.step.terminated | self.step.truncated).cpu().numpy(),
            "infos": self.infos,
            "new_obs": lambda: as_numpy(self.agent.vector.heard[0]),
            "actions": self.actions,
            "clipped_actions": self.actions,
            "values": lambda: self.agent.collector.acted[2].unsqueeze(1),
            "log_probs": self.log_probs,
            "episode_starts": lambda: self.agent.collector.buffer["start"][self.count].cpu().numpy(),
        }

    def actions(self) -> Any:
        """[B, ...] actions as sent to the environment."""
        action = self.agent.policy.action_head.to_env(self.agent.collector.acted[1])
        return action.cpu().numpy().astype(self.agent.action_space.dtype, copy=False)

    def log_probs(self) -> Any:
        """[B] log-probability of the actions."""
        distribution, action, _ = self.agent.collector.acted
        return distribution.log_prob(action).detach()

    def infos(self) -> list[dict[str, Any]]:
        """A dict for each environment; at the end of an episode with "episode", as a Monitor adds it."""
        rows: list[dict[str, Any]] = self.agent.vector.infos(self.step)
        if self.ended is None:
            return rows
        ended, returns, lengths, success = self.ended
        for row in np.flatnonzero(ended.cpu().numpy()):
            info, length = rows[row], int(lengths[row])
            episode = {"r": round(float(returns[row]), 6), "l": length, "t": round(self.agent.elapsed, 6)}
            info.setdefault("episode", episode)
            if success is not None:
                info.setdefault("is_success", bool(success[row]))
        return rows
