"""Demonstrations: episodes of a T-maze by an oracle, and of BabyAI levels by minigrid's own bot."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from rlmin.data.recorder import Recorded, Recorder
from rlmin.envs.t_maze import DOWN, RIGHT, UP
from rlmin.vector.make import make_vec

ALIKE = 5
"""T-mazes of one length that are played at once."""

LONGEST = 10_000
"""Actions after which a bot has failed."""


def walk_t_mazes(episodes: int, *, length: int, wrong: float, seed: int) -> Iterator[tuple[Recorded, int]]:
    """Passive T-mazes of lengths drawn uniformly from 1..length, solved without a wasted step.

    Args:
        episodes: number of episodes.
        length: of the longest corridor.
        wrong: share of episodes that turn away from the goal at the end, return 0 instead of 1.
        seed: of lengths, goals and turns.

    Yields:
        the episode, and the seed of its row.
    """
    random = np.random.default_rng(seed)
    for at in range(0, episodes, ALIKE):
        rows, corridor = min(ALIKE, episodes - at), int(random.integers(1, length + 1))
        env = Recorder(make_vec("rlmin/TMaze-v0", rows, length=corridor))
        observation, _ = env.reset(seed=seed + at)
        goal = observation[:, 1] * torch.from_numpy(np.where(random.random(rows) < wrong, -1, 1))
        for _ in range(corridor):
            env.step(torch.full((rows,), RIGHT))
        env.step(torch.where(goal > 0, UP, DOWN))
        yield from ((episode, seed + at + episode.row) for episode in env.take())
        env.close()


def play_bot(env_id: str, episodes: int, *, seed: int, **kwargs: Any) -> Iterator[tuple[Recorded, int]]:
    """Levels of BabyAI solved by its bot, each reset with a seed of its own; levels that the bot fails are skipped.

    The bot sees the whole grid. The recorded observations are an agent's: the view around it, its direction and the
    mission, which rlmin's policies do not read, so only levels with one mission (or one object) make sense.

    Args:
        env_id: of the level.
        episodes: number of episodes.
        seed: of the first level; the others follow.
        kwargs: of the level.

    Yields:
        the episode, and the seed of its level.

    Raises:
        ValueError: it is not a level of BabyAI, or the bot fails ten times as often as it succeeds.
    """
    env = Recorder(make_vec(env_id, 1, **kwargs))
    try:
        solved = 0
        for number in range(11 * episodes):
            episode = _solve(env, seed + number)
            if episode is not None:
                solved += 1
                yield episode, seed + number
            if solved == episodes:
                return
        raise ValueError(f"{env_id}: the bot solved {solved} of {11 * episodes} levels, {episodes} were wanted")
    finally:
        env.close()


def _solve(env: Recorder, seed: int) -> Recorded | None:
    """One level; None where the bot gives up, or does not reach the goal."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    env.reset(seed=seed)
    env.take()
    level = env.unwrapped.envs[0].unwrapped  # type: ignore[attr-defined]
    if not hasattr(level, "instrs"):
        raise ValueError(f"{level}: expected a level of BabyAI, whose mission is an instruction")
    bot: Any = BabyAIBot(level)  # type: ignore[no-untyped-call]
    action = None
    for _ in range(LONGEST):
        try:
            action = bot.replan(action)
        except Exception:  # the bot is heuristic: an error (an assert, an unreachable goal) costs this level only
            return None
        _, reward, terminated, truncated, _ = env.step(np.array([int(action)]))
        if terminated[0] or truncated[0]:
            return env.take()[0] if reward[0] > 0 else None
    return None
