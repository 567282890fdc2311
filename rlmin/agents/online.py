"""OnlineAgent: an agent that learns by acting in an environment."""

import sys
from abc import abstractmethod
from typing import Any

from rlmin.agents.agent import Agent
from rlmin.agents.env_spec import describe_env
from rlmin.vector import Vector, adapt


class OnlineAgent(Agent):
    """An agent and the environments it acts and learns in."""

    _vector: Vector | None = None

    @abstractmethod
    def attach(self, vector: Vector) -> None:
        """Train in `vector` from now on: new episodes, no memory.

        Raises:
            ValueError: its spaces differ from the policy's, or the settings do not fit its size.
        """

    @property
    @abstractmethod
    def rows(self) -> int:
        """B of this rank, if the environment is made from its id."""

    @property
    @abstractmethod
    def step_timeout(self) -> float | None:
        """Seconds that worker processes may take for a step; None: for ever."""

    @property
    def env_seed(self) -> int:
        """Seed of new episodes: environment i of this rank gets seed + i, and no two of the run have the same."""
        return self.seed + self.num_timesteps + self.ranks.rank * self.rows

    @property
    def vector(self) -> Vector:
        """The training environments; an agent loaded from a folder makes them from their id at first use."""
        if self._vector is None:
            spec = self.env_spec
            if spec["id"] is None:
                raise ValueError("this agent has no environment; give it one with set_env(env)")
            options: dict[str, Any] = {"env_kwargs": spec["kwargs"], "workers": spec["workers"]}
            options["step_timeout"] = self.step_timeout
            self.attach(adapt(spec["id"], num_envs=self.rows, device=self.device, **options))
        assert self._vector is not None, "attach sets it or raises"
        return self._vector

    def ready(self) -> None:
        """Have environments: see `vector`."""
        _ = self.vector

    def close(self) -> None:
        """Close the environments, where there are any."""
        if self._vector is not None:
            self._vector.close()

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Train in `env` from now on, in new episodes; it may be anything the agent can be made with. See `attach`.

        Args:
            env: the environment.
            force_reset: no effect; an environment is always reset.
        """
        rows = self.rows if isinstance(env, str) else None
        vector = adapt(env, num_envs=rows, device=self.device, step_timeout=self.step_timeout)
        self.attach(vector)
        self.env_spec = describe_env(env)

    def parts(self, *, environment: bool) -> dict[str, Any]:
        """See `Agent.parts`; without its environments an agent has no memory of their episodes either."""
        parts = super().parts(environment=environment)
        if environment or self._vector is None:
            return parts
        raw = self._vector.env
        left = {name: x for name, x in parts.items() if name not in ("collector", "discounted") and x is not raw}
        return left | {"_vector": None}

    def get_vec_normalize_env(self) -> Any:
        """The stable-baselines3 VecNormalize around the given environment, so that callbacks save it; else None."""
        sb3 = sys.modules.get("stable_baselines3.common.vec_env")  # there, if the user has made one
        env = None if self._vector is None else self._vector.env
        return sb3.unwrap_vec_normalize(env) if sb3 is not None and isinstance(env, sb3.VecEnv) else None

    def get_env(self) -> Any:
        """The environment as it was given (or made from its id)."""
        return self.vector.env
