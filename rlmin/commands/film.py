"""Films of a policy at play, made by gymnasium's own recorder."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo

from rlmin.agents.agent import Agent
from rlmin.checks import require
from rlmin.evaluation.play import LONGEST
from rlmin.settings import Count, Seed
from rlmin.settings.boundary import checked
from rlmin.vector.arena import Arena
from rlmin.vector.make import make_one, readable_errors

SUFFIX = ".mp4"


@dataclass(frozen=True, kw_only=True)
class Film:
    """Episodes that were filmed."""

    files: tuple[Path, ...]
    returns: tuple[float, ...]  # of each episode, env units

    def __str__(self) -> str:
        returns = ", ".join(f"{total:.3f}" for total in self.returns)
        return f"filmed, return {returns}: {', '.join(str(file) for file in self.files)}"


@checked
def film(
    agent: Agent,
    arena: Arena,
    target: Path,
    *,
    episodes: Count = 1,
    deterministic: bool = True,
    seed: Seed | None = 0,
    target_return: float | None = None,
    max_steps: Count = LONGEST,
) -> Film:
    """Play whole episodes and film them.

    Args:
        agent: the player.
        arena: the environment, which has to render to "rgb_array".
        target: an .mp4 file for all episodes one after the other, or a folder for one file an episode.
        episodes: number of episodes.
        deterministic: the most likely action instead of a sample.
        seed: of the environment and the samples.
        target_return: target of a return-conditioned agent; None: the largest return of its data.
        max_steps: largest length of an episode.

    Raises:
        ImportError: moviepy is not installed.
        ValueError: no episodes, a file of another kind, an environment without pictures, or an episode that does
            not end. No half-written file is left, and no film is lost to one.
    """
    require("moviepy", extra="video")
    if episodes < 1:
        raise ValueError(f"video_episodes={episodes}: expected at least 1")
    if target.suffix not in ("", SUFFIX) and not target.is_dir():
        raise ValueError(f"{target}: expected a file that ends in {SUFFIX}, or a folder")
    in_one = target.suffix == SUFFIX and not target.is_dir()
    folder = target.parent if in_one else target
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".film.{os.getpid()}"
    try:
        options: dict[str, Any] = {"deterministic": deterministic, "seed": seed}
        if target_return is not None:
            options["target_return"] = target_return
        returns = _record(agent, arena, unfinished, options, episodes=episodes, in_one=in_one, max_steps=max_steps)
        made = sorted(unfinished.glob(f"*{SUFFIX}"), key=lambda file: int(file.stem.rpartition("-")[2]))
        files = tuple(file.replace(target if in_one else folder / file.name) for file in made)
        return Film(files=files, returns=returns)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _record(
    agent: Agent, arena: Arena, folder: Path, options: dict[str, Any], *, episodes: int, in_one: bool, max_steps: int
) -> tuple[float, ...]:
    """Play, with gymnasium's RecordVideo around the environment; the returns."""
    with readable_errors(arena.id):
        env = make_one(arena.id, **{**arena.kwargs, "render_mode": "rgb_array"})
    _check_pictures(env, arena.id)
    when: dict[str, Any] = {"episode_trigger": lambda episode: True}
    if in_one:  # started once, and never long enough to be cut
        when = {"episode_trigger": lambda episode: episode == 0, "video_length": sys.maxsize}
    with readable_errors(arena.id):
        shifted = arena.shift.single(RecordVideo(env, str(folder), name_prefix="film", **when))
    try:
        with readable_errors(arena.id):
            act = agent.actor(shifted, **options)
            return tuple(_episode(act, options["seed"] if i == 0 else None, max_steps) for i in range(episodes))
    finally:
        shifted.close()


def _check_pictures(env: gym.Env[Any, Any], id: str) -> None:
    """Raise a ValueError if no picture can be drawn; graphics fail in many ways, most often without a screen."""
    try:
        env.reset()
        picture = env.render()
    except Exception as error:
        env.close()
        is_mujoco = type(error).__module__.startswith("mujoco")
        hint = "; without a screen MuJoCo needs MUJOCO_GL=egl or MUJOCO_GL=osmesa" if is_mujoco else ""
        raise ValueError(f"{id}: cannot be drawn here ({type(error).__name__}: {error}){hint}") from error
    if not isinstance(picture, np.ndarray):
        env.close()
        raise ValueError(f"{id}: expected pictures from render(), got {type(picture).__name__}")


def _episode(act: Any, seed: int | None, max_steps: int) -> float:
    act.reset(seed=seed)
    total = 0.0
    for _ in range(max_steps):
        _, reward, terminated, truncated, _ = act.step()
        total += float(reward)
        if terminated or truncated:
            return total
    raise ValueError(f"the episode has not ended after {max_steps:,} steps; set max_episode_steps, or raise max_steps")
