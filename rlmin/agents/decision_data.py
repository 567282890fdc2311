"""The data of a decision agent: their episodes, their unit of return, and how they are found again."""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlmin.agents.decision_config import DecisionConfig
from rlmin.agents.env_spec import describe_env
from rlmin.policy import Policy
from rlmin.policy.fit import check_fit
from rlmin.spaces import without
from rlmin.types import Observation
from rlmin.vector import MASK
from rlmin.vector.make import make_vec
from rlmin.wrappers.return_to_go import RETURN_TO_GO
from rlmin.wrappers.transform import with_leaf

CHUNK = 1 << 16
"""Number of steps checked at once."""

QUANTILES = 201
"""Largest number of returns that a run stores."""

if TYPE_CHECKING:  # rlmin.data needs tensordict, which is slow to import
    from tensordict import TensorDict

    from rlmin.data.dataset import Dataset
    from rlmin.data.feed import Feed
    from rlmin.data.packing import Packing


def open_data(
    source: Any, env: Any = None, *, trust: bool = False, skip_bad_episodes: bool = False
) -> tuple["Dataset", dict[str, Any]]:
    """The dataset that `source` is or names, and plain values that identify it.

    Args:
        source, env, trust, skip_bad_episodes: see `rlmin.data.load_dataset`.

    Returns:
        the data; and {"source", "env", "skip_bad_episodes"}: how they are found again, None if unknown, "name",
        "episodes", "steps" and a "digest" that differs where lengths or returns do.

    Raises:
        ValueError: see `rlmin.data.load_dataset`.
    """
    from rlmin.data import load_dataset

    dataset = load_dataset(source, env=env, trust=trust, skip_bad_episodes=skip_bad_episodes)
    digest = hashlib.sha256(dataset.first.numpy().tobytes() + dataset.returns.numpy().tobytes()).hexdigest()
    record = {"source": _name_of(source), "env": env, "name": dataset.name, "episodes": dataset.num_episodes}
    record |= {"steps": dataset.num_steps, "digest": digest}
    return dataset, record | ({"skip_bad_episodes": True} if skip_bad_episodes else {})


def _name_of(source: Any) -> str | None:
    """A Minari id, or the path of a file; None for data in memory."""
    if isinstance(source, str | Path):
        return str(Path(source).resolve()) if Path(source).exists() else str(source)
    return getattr(getattr(source, "spec", None), "dataset_id", None)  # of a MinariDataset


def make_policy_space(observation_space: gym.Space[Any], *, conditioned: bool) -> gym.Space[Any]:
    """The observation space of the policy: that of the data, with `conditioned` as in the wrapper `ReturnToGo`.

    An entry `action_mask` is no observation, as in an environment.
    """
    space = without(observation_space, MASK)
    return with_leaf(space, RETURN_TO_GO, gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)) if conditioned else space


def check_spaces(dataset: "Dataset", policy: Policy, *, conditioned: bool) -> None:
    """Raise a ValueError if the spaces of the data are not those the policy was made for."""
    space = make_policy_space(dataset.observation_space, conditioned=conditioned)
    check_fit(policy, space, dataset.action_space, of=f"dataset {dataset.name!r}")


def name_env(env: Any) -> Any:
    """An environment as its id and arguments; None, an id and {"id", "kwargs"} are returned unchanged.

    Raises:
        ValueError: it has no id, or wrappers that its id does not bring.
    """
    if env is None or isinstance(env, str | Mapping):
        return env
    found = describe_env(env)
    if found["id"] is None:
        raise ValueError(f"env: {env} differs from its id; give an id or {{'id': ..., 'kwargs': ...}}")
    return {"id": found["id"], "kwargs": found["kwargs"]}


def check_env(env: dict[str, Any], policy: Policy, *, conditioned: bool) -> None:
    """Raise a ValueError if the named environment cannot be made, or does not fit the policy."""
    made = make_vec(env["id"], 1, **env["kwargs"])
    try:
        space = make_policy_space(made.single_observation_space, conditioned=conditioned)
        check_fit(policy, space, made.single_action_space, of=f"environment {env['id']}")
    finally:
        made.close()


def select_leaves(observation: "TensorDict", names: Collection[str]) -> Observation:
    """The leaves of logged observations that the policy sees, by its own names.

    Beside a return-to-go the parts of a Tuple are "observation.0" and so on: see `rlmin.wrappers.transform.with_leaf`.
    """
    shown = {name: x for name, x in observation.items() if name != MASK}
    return {name if name in names else f"observation.{name}": x for name, x in shown.items()}


def legal_actions(batch: "TensorDict", policy: Policy) -> Tensor | None:
    """[T, B, flags] bool, the legal actions, if the data have them and the policy can use them."""
    mask = batch["observation"].get(MASK, None)
    return None if mask is None or not policy.action_head.mask_size else mask.bool().flatten(2)


def check_masks(dataset: "Dataset", policy: Policy) -> None:
    """Raise a ValueError if a logged action is forbidden by its own mask: its loss would be unbounded."""
    head: Any = policy.action_head  # only choices have sizes
    if MASK not in dataset.step["observation"].keys() or not head.mask_size:  # noqa: SIM118, of a TensorDict
        return
    before = torch.tensor([0, *head.sizes[:-1]]).cumsum(0)
    for first in range(0, dataset.num_steps, CHUNK):
        step = dataset.step[first : first + CHUNK]
        mask = step["observation", MASK].bool().flatten(1)
        wrong = (~mask.gather(1, step["action"].reshape(len(mask), -1) + before)).any(1)
        if wrong.any():
            number = first + int(wrong.nonzero()[0])
            episode = int(torch.searchsorted(dataset.first, number, right=True)) - 1
            where = f"dataset {dataset.name!r}: episode {episode}, step {number - int(dataset.first[episode])}"
            raise ValueError(f"{where}: its {MASK} forbids the action")


def facts(dataset: "Dataset") -> dict[str, Any]:
    """Values for evaluations, plain: "returns" (all, or 201 quantiles), their "mean", "reference"."""
    returns = dataset.returns.numpy()
    if len(returns) > QUANTILES:
        returns = np.quantile(returns, np.linspace(0, 1, QUANTILES))
    reference = None if dataset.reference is None else asdict(dataset.reference)
    return {"returns": returns.tolist(), "mean": float(dataset.returns.mean()), "reference": reference}


def round_scale(dataset: "Dataset") -> float:
    """1, 2 or 5 times a power of ten, the nearest (as a ratio) to the largest return-to-go in size; 1 where all are 0.

    The policy sees a return of that size as about 1. It may be far larger than every return if rewards cancel out.
    """
    largest = float(dataset.return_to_go().abs().max())
    if not math.isfinite(largest):
        raise ValueError(f"dataset {dataset.name!r}: a return is too large for float32; scale the rewards down")
    if largest == 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return min((digit * power for digit in (1, 2, 5, 10)), key=lambda scale: abs(math.log(scale / largest)))


def split(dataset: "Dataset", config: DecisionConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Episodes to train on and to hold out, both in ascending order.

    The held-out ones are drawn first, so that they are a sample of all data; the best of the rest are trained on.
    """
    order = np.random.default_rng((seed, 1, 1)).permutation(dataset.num_episodes)
    kept_out = int(config.held_out * dataset.num_episodes)
    rest = np.sort(order[kept_out:])
    best = np.argsort(-dataset.returns.numpy()[rest], kind="stable")
    return np.sort(rest[best[: math.ceil(config.top_fraction * len(rest))]]), np.sort(order[:kept_out])


def make_packing(
    dataset: "Dataset", config: DecisionConfig, episodes: np.ndarray, *, seed: int, stagger: bool
) -> "Packing":
    """Batches of these episodes, by the settings."""
    from rlmin.data.packed_rows import PackedRows
    from rlmin.data.windows import Windows

    shared: dict[str, Any] = {"rows": config.rows, "seed": seed, "episodes": episodes}
    shared["return_scale"] = config.return_scale or 1.0
    if config.windows is not None:
        return Windows(dataset, length=config.windows, **shared)
    stagger = stagger and int(dataset.lengths[episodes].max()) > config.horizon
    return PackedRows(dataset, horizon=config.horizon, stagger=stagger, **shared)


def make_feed(dataset: "Dataset", device: torch.device, packing: "Packing", held_out: "Packing | None") -> "Feed":
    """The batches of `packing` on a device; there the data of both packings are, too, if it has room."""
    from rlmin.data.feed import Feed, has_room

    resident = has_room(dataset.step, device)
    if resident:
        step = dataset.step.to(device)
        for one in (packing, held_out):
            if one is not None:
                one.place(step)
    return Feed(packing, device, ahead=device.type != "cpu" and not resident)
