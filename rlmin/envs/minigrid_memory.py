"""MiniGrid's memory levels with a small symbolic view: see an object, walk a hallway, turn towards its twin.

The levels, their random draws, movement and rewards are the minigrid package's own `MemoryEnv`:

    size S, a start room at the west end with a green key or ball, a hallway, and at its east end a junction with a key
    and a ball to the north and south in random order. Standing beside the twin of the first object ends the episode
    with reward 1 - 0.9 * step / max_steps, beside the other with 0; after max_steps = 5 * S^2 it is truncated. The
    agent starts anywhere along the hallway facing east: with a 3 x 3 view it has to go back and look first.

What this file changes:

    observation   the symbolic view alone, MultiDiscrete [view, view, 3] of (object, colour, state), as minigrid
                  encodes it; no compass and no mission text
    actions       0 left, 1 right, 2 forward; the other four of minigrid do nothing useful in these levels
    layouts       None draws a fresh layout for every episode; n draws, for every episode, one of the n layouts that
                  minigrid makes from the seeds 0..n-1
    info          `is_success` at the end of an episode

Chance, for an agent that reaches the junction and guesses, is 0.5 success.

These three actions never change the grid, so a view depends only on the layout, the cell and the direction. Views are
kept once minigrid has computed them, and layouts of a numbered seed too; a test compares both with minigrid itself.

Source: Chevalier-Boisvert et al. 2023, arXiv:2306.13831; 3 x 3 view and numbered layouts as in Pleines et al. 2023.
"""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from minigrid.core.grid import Grid
from minigrid.envs.memory import MemoryEnv

from rlmin.envs.grid_layouts import check_level, read_level

KINDS = (11, 6, 4)
"""Number of objects, colours and states in minigrid's encoding (a state is a door's 0..2 or a direction 0..3)."""

Image = np.ndarray[Any, np.dtype[np.uint8]]
Views = dict[tuple[int, int, int], Image]  # (x, y, direction) -> view, of one grid


class Layout(NamedTuple):
    """What minigrid generates for one seed."""

    grid: Grid
    start: tuple[int, int]
    success: tuple[int, int]
    failure: tuple[int, int]


class MiniGridMemory(gym.Env[Image, np.int64]):
    """One memory level; see the module for its rules.

    Args:
        level: one of `rlmin.envs.grid_layouts.LEVELS`, or another size, see `GridMemory`.
        view_size: odd, at least 3.
        layouts: how many numbered layouts there are; None for a fresh one each episode.
        render_mode: minigrid's own.

    Raises:
        ValueError: an unknown level, an even or too small view, layouts below 1.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012  (gymnasium's type)

    def __init__(
        self, *, level: str = "S9", view_size: int = 3, layouts: int | None = None, render_mode: str | None = None
    ) -> None:
        check_level(level, view_size, layouts)
        size, random_length = read_level(level)
        self.level, self.layouts, self.render_mode = level, layouts, render_mode
        self.inner: Any = _Memory(
            size=size, random_length=random_length, agent_view_size=view_size, render_mode=render_mode
        )
        kinds = np.broadcast_to(np.array(KINDS), (view_size, view_size, 3))
        self.observation_space = spaces.MultiDiscrete(kinds, dtype=np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        """Open an episode.

        Args:
            seed: with fresh layouts, minigrid's own seed; with numbered ones, the seed that draws their numbers.
            options: `{"layout": k}` chooses the numbered layout k.
        """
        super().reset(seed=seed)
        if self.layouts is None:
            return self.inner.reset(seed=seed)[0], {}
        number = (options or {}).get("layout")
        number = int(self.np_random.integers(self.layouts)) if number is None else int(number)
        return self.inner.open_numbered(number), {"layout": number}

    def step(self, action: int | np.int64) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        """Turn left (0), turn right (1) or go forward (2)."""
        if not 0 <= action < 3:
            raise ValueError(f"action: expected 0 left, 1 right or 2 forward, got {action}")
        image, reward, terminated, truncated, _ = self.inner.step(action)
        info = {"is_success": bool(terminated and reward > 0)} if terminated or truncated else {}
        return image, float(reward), terminated, truncated, info

    def render(self) -> Any:
        """Minigrid's picture of the level."""
        return self.inner.render()

    def close(self) -> None:
        """Close minigrid's window, if there is one."""
        self.inner.close()


class _Memory(MemoryEnv):
    """Minigrid's level with its views remembered; `gen_obs` is the image alone."""

    known: dict[tuple[Any, ...], Views] = {}  # noqa: RUF012  (shared on purpose: there are few different grids)

    def __init__(self, **kwargs: Any) -> None:
        self._views: Views = {}
        self._numbered: dict[int, tuple[Layout, Views]] = {}
        super().__init__(**kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        super()._gen_grid(width, height)  # type: ignore[no-untyped-call]
        # which object is the twin, and where, tells the cue, the order and the hallway's length: the whole grid
        x, y = self.success_pos
        twin = self.grid.get(x, y + (1 if y > height // 2 else -1))
        assert twin is not None
        key = (width, self.agent_view_size, self.success_pos, twin.type)
        self._views = self.known.setdefault(key, {})

    def open_numbered(self, number: int) -> Image:
        """Reset to the layout minigrid makes from the seed `number`."""
        if number not in self._numbered:
            self.reset(seed=number)
            layout = Layout(self.grid, tuple(self.agent_pos), self.success_pos, self.failure_pos)
            self._numbered[number] = layout, self._views
        (self.grid, self.agent_pos, self.success_pos, self.failure_pos), self._views = self._numbered[number]
        self.agent_dir, self.step_count, self.carrying = 0, 0, None
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return self.gen_obs()

    def gen_obs(self) -> Image:
        x, y = self.agent_pos
        key = (int(x), int(y), self.agent_dir)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = super().gen_obs()["image"]  # type: ignore[no-untyped-call]
        return view.copy()
