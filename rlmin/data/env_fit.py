"""Whether logged data have the spaces of an environment."""

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym

from rlmin.spaces import as_read, without
from rlmin.spaces.as_json import space_to_json
from rlmin.vector import MASK
from rlmin.vector.make import make_vec


class Spaced(Protocol):
    """Anything with a name and spaces: a Source or a Dataset."""

    @property
    def name(self) -> str: ...
    @property
    def observation_space(self) -> gym.Space[Any]: ...
    @property
    def action_space(self) -> gym.Space[Any]: ...


def check_env_fit(data: Spaced, env: Mapping[str, Any]) -> None:
    """Raise a ValueError if the spaces differ; bounds and precision of observed floats may.

    Args:
        data: a source or a dataset.
        env: {"id", "kwargs"} of the environment, which is made.
    """
    made = make_vec(env["id"], 1, **env["kwargs"])
    theirs = made.single_observation_space, made.single_action_space
    made.close()
    pairs = (("observation", as_read(without(data.observation_space, MASK)), as_read(without(theirs[0], MASK))),)
    for what, found, wanted in (*pairs, ("action", data.action_space, theirs[1])):
        if space_to_json(found) != space_to_json(wanted):
            raise ValueError(f"dataset {data.name!r}: its {what} space is {found}, that of {env['id']} is {wanted}")
