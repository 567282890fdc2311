"""Catalog: a table of every id of the library with its spaces, length, floor and ceiling."""

import importlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from rlmin.envs import GAMES
from rlmin.envs.tensor_env import Variant

LEGEND = """
random, floor, ceiling: mean return of random actions, of a good policy without a memory, and of a very good one; the
last column says which. 3 of 65: three choices with up to 65 values each. steps: the most of an episode.
Train on one:  rlmin train --env ID        watch it:  rlmin evaluate RUN --video FILE.mp4"""

HEAD = ("id", "observation", "action", "steps", "random", "floor", "ceiling", "floor: how / ceiling: how")


def variants() -> Iterator[tuple[str, Variant]]:
    """Every id of a native game and what its returns mean."""
    for file in GAMES:
        known: dict[str, Variant] = importlib.import_module(f"rlmin.envs.{file}").VARIANTS
        yield from ((f"rlmin/{id}", variant) for id, variant in known.items())


def lines() -> list[str]:
    """The table, one line an id, and what it means."""
    known = dict(variants())
    rows = [HEAD]
    for id in sorted(name for name in gym.registry if name.startswith("rlmin/")):
        env = gym.make(id, disable_env_checker=True)
        limit = env.spec.max_episode_steps if env.spec else None
        rows.append((id, brief(env.observation_space), brief(env.action_space), *_describe(known.get(id), limit)))
        env.close()
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD) - 1)]
    table = ["  ".join([*(f"{x:<{w}}" for x, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]
    return [*table, *LEGEND.splitlines()]


def brief(space: gym.Space[Any]) -> str:
    """A space in words: "4 choices" of one; "2 of 9", two with at most nine values each; "2 numbers" of a Box."""
    if isinstance(space, spaces.Discrete):
        return f"{space.n} choices"
    if isinstance(space, spaces.MultiDiscrete):
        return "x".join(map(str, space.shape)) + f" of {space.nvec.max()}"
    if isinstance(space, spaces.Box):
        return "x".join(map(str, space.shape)) + (" number" if space.shape == (1,) else " numbers")
    if isinstance(space, spaces.Tuple):
        return " + ".join(brief(part) for part in space.spaces)
    if isinstance(space, spaces.Dict):
        return " + ".join(f"{name}: {brief(part)}" for name, part in space.spaces.items())
    return str(space)


def _describe(variant: Variant | None, limit: int | None) -> tuple[str, str, str, str, str]:
    """Steps, random, floor, ceiling and the policies behind the last two; only steps if the game is not native."""
    if variant is None:
        return str(limit or "-"), "-", "-", "-", ""
    how = f"{variant.floor_policy} / {variant.ceiling_policy}"
    return str(variant.length), _number(variant.random), _number(variant.floor), _number(variant.ceiling), how


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
