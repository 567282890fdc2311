"""T-maze: remember one bit, seen at the start, to the end of a corridor.

Rules. A corridor runs along y = 0 from x = 0 to the junction x = J; two goals lie beside the junction at (J, +1) and
(J, -1), and one of them, drawn with equal chance for each episode, is right. The cue is read at x = 0.

    passive   starts on the cue, x = 0;                     J = length;      exactly length + 1 steps
    active    starts one step right of it, x = 1, o = 1;    J = length + 1;  exactly length + 3 steps

Actions: 0 right (+x), 1 up (+y), 2 left (-x), 3 down (-y). A move into a wall does nothing.
Observation, 2 floats: [0, y of the right goal] at x = 0 for the first time in an episode, [0, 0] there later and in
the corridor, [1, y] at the junction and on the goals.
Reward: at the last step 1 on the right goal, else 0; at every step before, -1/length where x < t - o, with t steps
taken and o the start (0 passive, 1 active): lagging behind an agent that never wastes a step costs.
The last step terminates the episode. It is no time limit: reward and value end there by the rules.

Returns: optimal 1, right-then-coin 0.5, always right 0, uniformly random about -1.

`TMaze` steps B mazes at once as tensors on any device; `TMazeEnv` plays one in plain Python, by the same rules and
with the same draws for the same seed.

Source: Ni et al. 2023, arXiv:2307.03864 (T-Maze passive and active, with ambiguous position).
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float32]]

RIGHT, UP, LEFT, DOWN = range(4)

OBSERVATION = spaces.Box(np.array([0, -1], dtype=np.float32), np.array([1, 1], dtype=np.float32))
ACTION = spaces.Discrete(4)

WORD = 1 << 64
WEYL, MIX_A, MIX_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64


class TMaze(VectorEnv[Tensor, Tensor, Tensor]):
    """B T-mazes in lockstep, as tensors: every episode has the same length, so all end and begin together."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012  (gymnasium's type)

    def __init__(
        self, num_envs: int = 1, *, length: int = 10, active: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        """Build the mazes; `reset` opens the first episodes.

        Args:
            num_envs: B.
            length: corridor cells from the start to the junction.
            active: start one step away from the cue.
            device: where state, observations and rewards live.
        """
        self.num_envs = num_envs
        self.length, self.active, self.device = _checked(length), active, torch.device(device)
        self.junction, self.steps = _extent(length, active)
        self.single_observation_space, self.single_action_space = OBSERVATION, ACTION
        self.observation_space = batch_space(OBSERVATION, num_envs)
        self.action_space = batch_space(ACTION, num_envs)
        self._right = torch.tensor([1, 0, -1, 0], device=self.device)
        self._up = torch.tensor([0, 1, 0, -1], device=self.device)
        self._seed: Tensor | None = None  # [B] int64
        self._episode = 0  # since seeding
        self._t = 0  # steps taken in the episode
        self._x = self._y = self._goal = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._cue_read = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._observation = torch.zeros(num_envs, 2, device=self.device)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Open an episode everywhere.

        Args:
            seed: maze i gets seed + i, or seed[i]; None continues with the next episodes of the seeds in use.
            options: none are known.
        """
        if options and "reset_mask" in options:
            raise ValueError("TMaze resets ended episodes itself (SAME_STEP): no reset_mask")
        if seed is not None or self._seed is None:
            self._seed, self._episode = self._seeds(seed), 0
        else:
            self._episode += 1
        return self._open(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Move every agent; at the last step of the episode the observation is the next episode's first.

        Args:
            actions: [B] int64 in 0..3.

        Returns:
            observation [B, 2] float32, reward [B] float32, terminated [B] bool, truncated [B] bool (never), infos; at
            the end infos hold `final_obs` [B, 2] and `is_success` [B] bool.
        """
        if self._seed is None:
            raise RuntimeError("call reset() before step()")
        self._t += 1
        corridor, junction = self._y == 0, self._x == self.junction
        along = (self._x + self._right[actions]).clamp(0, self.junction)
        across = (self._y + self._up[actions]).clamp(-1, 1)
        self._x, self._y = torch.where(corridor, along, self._x), torch.where(junction, across, self._y)
        observation = self._look()
        over = torch.full((self.num_envs,), self._t == self.steps, device=self.device)
        if self._t < self.steps:
            reward = (self._x < self._t - int(self.active)).float() / -self.length
            return observation, reward, over, torch.zeros_like(over), {}
        success = self._y == self._goal
        self._episode += 1
        infos = {"final_obs": observation, "_final_obs": over, "is_success": success, "_is_success": over}
        return self._open(), success.float(), over, torch.zeros_like(over), infos

    def get_state(self) -> dict[str, Tensor]:
        """Everything the future depends on besides actions, as tensors that the env does not change later."""
        if self._seed is None:
            raise RuntimeError("call reset() before get_state()")
        clock = torch.tensor([self._t, self._episode])
        parts = {"x": self._x, "y": self._y, "goal": self._goal, "cue_read": self._cue_read, "seed": self._seed}
        parts["observation"] = self._observation
        return {name: part.clone() for name, part in parts.items()} | {"clock": clock}

    def set_state(self, state: dict[str, Tensor]) -> Tensor:
        """Continue from `get_state()` of a maze with the same options, bit for bit.

        Returns:
            the observation [B, 2] of that state.
        """
        if state["x"].shape != (self.num_envs,):
            raise ValueError(f"state: expected [B={self.num_envs}], got {list(state['x'].shape)}")
        here = {name: part.to(self.device, copy=True) for name, part in state.items() if name != "clock"}
        self._x, self._y, self._goal, self._seed = here["x"], here["y"], here["goal"], here["seed"]
        self._t, self._episode = (int(number) for number in state["clock"])
        self._cue_read, self._observation = here["cue_read"], here["observation"]
        return self._observation

    def _seeds(self, seed: int | Sequence[int] | None) -> Tensor:
        if seed is None:
            seed = int(self.np_random.integers(1 << 31))
        if isinstance(seed, int):
            seed = range(seed, seed + self.num_envs)
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}")
        return torch.tensor([_signed(number) for number in seed], device=self.device)

    def _open(self) -> Tensor:
        assert self._seed is not None
        self._t = 0
        self._goal = _draw(self._seed, self._episode)
        self._x = torch.full_like(self._goal, int(self.active))
        self._y = torch.zeros_like(self._goal)
        self._cue_read = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return self._look()

    def _look(self) -> Tensor:
        """The observation; seeing the cue spends it."""
        cue = (self._x == 0) & ~self._cue_read
        self._cue_read = self._cue_read | cue
        end = self._x == self.junction
        self._observation = torch.stack((end, torch.where(end, self._y, cue * self._goal)), dim=1).float()
        return self._observation


def _checked(length: int) -> int:
    if length < 1:
        raise ValueError(f"length={length}: the corridor needs at least one cell")
    return length


def _extent(length: int, active: bool) -> tuple[int, int]:
    """The junction's x, and the number of steps of an episode."""
    return (length + 1, length + 3) if active else (length, length + 1)


def _draw(seed: Tensor, episode: int) -> Tensor:
    """y of the right goal: the top bit of splitmix64, a function of seed and episode alone.

    So the draws are the same on every device and need no generator state. int64 products wrap around, as intended.
    """
    z = seed * _signed(MIX_A) + _signed((episode + 1) * WEYL)
    z = (z ^ _shift(z, 30)) * _signed(MIX_A)
    z = (z ^ _shift(z, 27)) * _signed(MIX_B)
    z = z ^ _shift(z, 31)
    return torch.where(z < 0, 1, -1)


def _draw_one(seed: int, episode: int) -> int:
    z = (seed * MIX_A + (episode + 1) * WEYL) % WORD
    z = ((z ^ z >> 30) * MIX_A) % WORD
    z = ((z ^ z >> 27) * MIX_B) % WORD
    z = z ^ z >> 31
    return 1 if z >> 63 else -1


def _signed(number: int) -> int:
    """The int64 with the low 64 bits of `number`."""
    return (number + WORD // 2) % WORD - WORD // 2


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


class TMazeEnv(gym.Env[Array, np.int64]):
    """One T-maze in plain Python: the same rules and draws as `TMaze`, for single-environment users."""

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012  (gymnasium's type)

    def __init__(self, *, length: int = 10, active: bool = False, render_mode: str | None = None) -> None:
        """Build the maze, see `TMaze`; `render_mode` "ansi" draws it as text."""
        self.length, self.active, self.render_mode = _checked(length), active, render_mode
        self.junction, self.steps = _extent(length, active)
        self.observation_space, self.action_space = OBSERVATION, spaces.Discrete(4)
        self._seed: int | None = None
        self._episode = 0
        self._x = self._y = self._t = self._goal = 0
        self._cue_read = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Open an episode; a seed is that of one maze of `TMaze`."""
        super().reset(seed=seed)
        if seed is None and self._seed is None:
            seed = int(self.np_random.integers(1 << 31))
        self._seed, self._episode = (self._seed, self._episode + 1) if seed is None else (seed, 0)
        assert self._seed is not None
        self._goal = _draw_one(self._seed, self._episode)
        self._x, self._y, self._t, self._cue_read = int(self.active), 0, 0, False
        return self._look(), {}

    def step(self, action: int | np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move the agent; the last step of the episode terminates it and adds `is_success`."""
        if not 0 <= action < 4:
            raise ValueError(f"action: expected 0..3, got {action}")
        self._t += 1
        if self._y == 0 and action in (RIGHT, LEFT):
            self._x = min(max(self._x + 1 - int(action), 0), self.junction)
        elif self._x == self.junction and action in (UP, DOWN):
            self._y = min(max(self._y + 2 - int(action), -1), 1)
        observation = self._look()
        if self._t < self.steps:
            lagging = self._x < self._t - int(self.active)
            return observation, -1.0 / self.length if lagging else 0.0, False, False, {}
        success = self._y == self._goal
        return observation, float(success), True, False, {"is_success": success}

    def render(self) -> str:
        """The maze as three lines of text: A the agent, * the right goal, o the cue."""
        rows = []
        for y in (1, 0, -1):
            cells = ["." if y == 0 or x == self.junction else " " for x in range(self.junction + 1)]
            if y == 0:
                cells[0] = "o"
            if y == self._goal:
                cells[self.junction] = "*"
            if y == self._y:
                cells[self._x] = "A"
            rows.append("".join(cells).rstrip())
        return "\n".join(rows)

    def _look(self) -> Array:
        if self._x == self.junction:
            return np.array([1, self._y], dtype=np.float32)
        cue = self._goal if self._x == 0 and not self._cue_read else 0
        self._cue_read = self._cue_read or self._x == 0
        return np.array([0, cue], dtype=np.float32)
