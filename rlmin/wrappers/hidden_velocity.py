"""Positions without velocities."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rlmin.settings import check_setting
from rlmin.settings.boundary import checked
from rlmin.wrappers.host import VectorWrapped, Wrapped
from rlmin.wrappers.transform import Memory, Transform

POSITIONS = {
    "CartPole": (0, 2),  # cart position, pole angle
    "Pendulum": (0, 1),  # cosine, sine
    "MountainCar": (0,),
    "MountainCarContinuous": (0,),
    "Acrobot": (0, 1, 2, 3),  # cosine and sine of both angles
    "LunarLander": (0, 1, 4, 6, 7),  # position, angle, legs on the ground
    "LunarLanderContinuous": (0, 1, 4, 6, 7),
    "BipedalWalker": (0, 4, 6, 8, 9, 11, 13, *range(14, 24)),  # angles, contacts, lidar
}
"""Name of an id -> the entries of its observation that are not velocities."""


class _HiddenVelocity(Transform):
    def __init__(self, shown: Sequence[int]) -> None:
        self.shown = list(shown)

    def space(self, observation: gym.Space[Any], action: gym.Space[Any]) -> gym.Space[Any]:
        if not isinstance(observation, spaces.Box) or len(observation.shape) != 1:
            raise ValueError(f"HiddenVelocity: expected a flat Box observation, got {observation}")
        size = observation.shape[0]
        if not self.shown or min(self.shown) < 0 or max(self.shown) >= size:
            raise ValueError(f"HiddenVelocity: shown={self.shown}: expected entries of 0..{size - 1}, at least one")
        dtype: Any = observation.dtype
        return spaces.Box(observation.low[self.shown], observation.high[self.shown], dtype=dtype)

    def see(self, memory: Memory, observation: Any) -> Any:
        return observation[..., self.shown]


def positions(spec: Any, inner: Any) -> tuple[int, ...]:
    """The entries of an environment's observation that are not velocities, by its id or its MuJoCo model.

    Raises:
        ValueError: neither is known.
    """
    name = "" if spec is None else spec.id.rpartition("/")[2].partition("-v")[0]
    if name in POSITIONS:
        return POSITIONS[name]
    layout = getattr(inner, "observation_structure", None)  # gymnasium's MuJoCo environments from v5 on
    if isinstance(layout, dict) and "qpos" in layout and list(layout).index("qpos") <= 1:
        return tuple(range(int(layout["qpos"])))
    raise ValueError(
        f"HiddenVelocity: which entries of {name or 'this environment'} are velocities is unknown; "
        "name those to show: shown=(0, 2, ...)"
    )


class HiddenVelocity(Wrapped):
    """Leaves the velocities out of a flat observation; they are removed, not zeroed.

    Args:
        env: CartPole, Pendulum, MountainCar, Acrobot, LunarLander, BipedalWalker, a MuJoCo id from v5 on (positions are
            `qpos`), or anything with a flat Box observation and `shown`.
        shown: entries of the observation to keep; None: those known for the id.
    """

    @checked
    def __init__(self, env: gym.Env[Any, Any], shown: Sequence[int] | None = None) -> None:
        found = positions(env.spec, env.unwrapped) if shown is None else check_setting("shown", shown, tuple[int, ...])
        super().__init__(env, _HiddenVelocity(found), shown=found)


class VectorHiddenVelocity(VectorWrapped):
    """`HiddenVelocity` of every environment."""

    @checked
    def __init__(self, env: VectorEnv[Any, Any, Any], shown: Sequence[int] | None = None) -> None:
        inner = getattr(env.unwrapped, "envs", [env.unwrapped])[0]
        found = (
            positions(env.spec, getattr(inner, "unwrapped", inner))
            if shown is None
            else check_setting("shown", shown, tuple[int, ...])
        )
        super().__init__(env, _HiddenVelocity(found))
