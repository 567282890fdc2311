"""OfflineAgent: an agent that learns from logged episodes."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlmin.agents import decision_data as data
from rlmin.agents.agent import Agent
from rlmin.agents.env_spec import describe_env
from rlmin.runs.checkpoint import Tensors
from rlmin.vector import adapt

if TYPE_CHECKING:
    from rlmin.data.dataset import Dataset


class OfflineAgent(Agent):
    """An agent with its data and the environment that they come from.

    Attributes:
        source: identifies the data, see `decision_data.open_data`; kept in checkpoints.
        callback_env: result of `get_env` while a callback counts steps, see `rlmin.runs.callbacks.LoggedSteps`.
    """

    source: dict[str, Any]
    _order: Tensors
    callback_env: Any = None
    _dataset: "Dataset | None" = None
    _env: Any = None

    @abstractmethod
    def attach(self, dataset: "Dataset", source: dict[str, Any]) -> None:
        """Train on `dataset` from now on: from the beginning of its order, with an empty memory.

        Args:
            dataset: the data.
            source: identifies them, see `decision_data.open_data`.

        Raises:
            ValueError: its spaces differ from the policy's.
        """

    def held_out(self) -> dict[str, float]:
        """Open-loop losses on the held-out episodes, by name; empty without such episodes."""
        return {}

    @abstractmethod
    def restore_order(self, tensors: Tensors) -> None:
        """Continue in the order of the data at the place of a checkpoint."""

    @contextmanager
    def learning(self) -> Iterator[None]:
        """See `Agent.learning`; only in here do callbacks count by an environment of their own."""
        try:
            with super().learning():
                yield
        finally:
            self.callback_env = None

    @property
    def dataset(self) -> "Dataset":
        """The training data; an agent loaded from a folder finds them again at first use.

        Raises:
            ValueError: they were given in memory, cannot be found, or have changed.
        """
        if self._dataset is None:
            wanted = self.source
            if wanted["source"] is None:
                raise ValueError("this agent's data were given in memory; give them again with set_dataset(dataset)")
            skip = wanted.get("skip_bad_episodes", False)
            dataset, found = data.open_data(wanted["source"], wanted["env"], trust=self.trust, skip_bad_episodes=skip)
            if found["digest"] != wanted["digest"]:
                raise ValueError(
                    f"dataset {wanted['source']!r}: this run's had {wanted['episodes']} episodes of {wanted['steps']} "
                    f"steps in all, found {found['episodes']} of {found['steps']}, or other returns; "
                    "set_dataset(dataset) continues with other data"
                )
            order = self._order
            self.attach(dataset, wanted)
            self.restore_order(order)
        assert self._dataset is not None, "attach sets it or raises"
        return self._dataset

    def set_dataset(
        self, dataset: Any, *, env: Any = None, trust: bool = False, skip_bad_episodes: bool = False
    ) -> None:
        """Train on `dataset` from now on, in any form that the constructor accepts. See `attach`.

        Normalisers and the unit of returns do not change; the range of possible targets may grow.
        """
        self.attach(*data.open_data(dataset, env, trust=trust, skip_bad_episodes=skip_bad_episodes))

    @property
    def finds_data(self) -> bool:  # type: ignore[override]
        """Whether the data have a name or a place."""
        return self.source["source"] is not None

    def parts(self, *, environment: bool) -> dict[str, Any]:
        """See `Agent.parts`; data count as "given", with their order as in a checkpoint."""
        order = {name: x for name, x in self.learner_state().items() if name.startswith(("packing.", "memory."))}
        made = ("packing", "feed", "_held_out", "_dataset", "memory", "_env", "callback_env")
        parts = {name: x for name, x in super().parts(environment=environment).items() if name not in made}
        return parts | {"_order": order, "memory": None, "given": self._dataset}

    def regain(self, data: Any) -> None:
        """See `Agent.regain`; without data they are found again at first use."""
        if data is not None:
            order = self._order
            self.attach(data, self.source)
            self.restore_order(order)

    def ready(self) -> None:
        """Have the data: see `dataset`."""
        _ = self.dataset

    def close(self) -> None:
        """Close the environment, where one was made."""
        if self._env is not None:
            self._env.close()

    def set_env(self, env: Any) -> None:
        """Name the environment for `get_env`: an id, or an environment."""
        spec = describe_env(env)
        self.env_spec = self.env_spec if spec["id"] is None else spec
        self._env, self.callback_env = None if isinstance(env, str) else env, None

    def get_env(self) -> Any:
        """The given environment, or that of the data, made from its id; None if that is unknown.

        It is not used in training; stable-baselines3's callbacks look at it.
        """
        return self.own_env() if self.callback_env is None else self.callback_env

    def own_env(self) -> Any:
        """`get_env`, also while a callback counts by another."""
        if self._env is None and self.env_spec["id"] is not None:
            self._env = adapt(self.env_spec["id"], num_envs=1, env_kwargs=self.env_spec["kwargs"]).env
        return self._env

    def header(self) -> dict[str, Any]:
        """The plain values of a checkpoint, those that identify the data among them."""
        return super().header() | {"dataset": self.source}

    def restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        """See `Agent.restore`; with data other than the checkpoint's, their order begins anew."""
        if self._dataset is None:
            self.source = header["dataset"]
        elif self.source["digest"] != header["dataset"]["digest"]:
            tensors = {name: x for name, x in tensors.items() if not name.startswith(("packing.", "memory."))}
        super().restore(header, tensors)
