"""Native environments: B games stepped at once as tensors, on any device.

A game is three pure functions of tensors and a picture:

    draw(seed, episode) -> Game         an episode's hidden draw and first state: a dict of [B, ...] tensors
    advance(game, action) -> Outcome    the entries that change, the reward, the ends
    observe(game) -> observation        what the agent sees of a state
    board(game) -> Board                what a person sees of one row

All randomness is a function of seed, episode and position (rlmin/envs/draws.py), so a row plays the same episodes
whatever its neighbours do, on every device, and a saved state continues bit for bit. Functions never write into the
tensors they are given. On a GPU nothing in `step` waits for the device or depends on values, so a CUDA graph can
capture it; on a CPU, work that no row needs is skipped.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypedDict

import gymnasium as gym
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlmin.envs.board import Board, Picture
from rlmin.envs.draws import to_signed

Game: TypeAlias = dict[str, Tensor]
"""The state of B games: [B, ...] tensors by name. "seed" and "episode" are the environment's own names."""

RESERVED = ("seed", "episode")


class Outcome(NamedTuple):
    """What an action did."""

    changes: Game  # the entries that are not as they were
    reward: Tensor  # [B] float
    terminated: Tensor | None = None  # [B] bool; None: nowhere
    truncated: Tensor | None = None  # [B] bool; None: nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A registered id of a game: its options, and what its returns mean."""

    options: dict[str, Any]  # for the game's constructor
    length: int  # steps of an episode, at most
    floor: float  # mean return of `floor_policy`
    floor_policy: str  # the best known without memory, or random play; in words
    ceiling: float  # mean return of `ceiling_policy`
    ceiling_policy: str
    random: float | None = None  # mean return of uniformly random actions, where known


class Shared(TypedDict, total=False):
    """Arguments that every game takes beside its own options."""

    device: torch.device | str  # where state, observations and rewards live; "cpu" by default
    render_mode: str | None  # "ansi" or "rgb_array": what `render` returns


class TensorEnv(VectorEnv[Any, Tensor, Tensor]):
    """B games in lockstep (SAME_STEP): a subclass defines the game, see the module."""

    metadata = {  # noqa: RUF012  (gymnasium's type)
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        num_envs: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        """Keep spaces and device; `reset` opens the first episodes.

        Args:
            num_envs: B.
            observation_space, action_space: of one game.
            device, render_mode: see `Shared`.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: expected at least 1")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r}: expected 'ansi', 'rgb_array' or None")
        self.num_envs, self.device, self.render_mode = num_envs, torch.device(device), render_mode
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.state: Game = {}
        self.truncates = True  # whether the game truncates, until its first step shows that it does not
        self._bound = _bound(action_space, self.device)

    @abstractmethod
    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """[B] int64 seeds and episode numbers -> the games at their start (without "seed" and "episode")."""

    @abstractmethod
    def advance(self, game: Game, action: Tensor) -> Outcome:
        """Take `action` [B, ...] in `game`."""

    @abstractmethod
    def observe(self, game: Game) -> Any:
        """What the agents see: tensors [B, ...] in the structure of the observation space."""

    @abstractmethod
    def board(self, game: Game) -> Board:
        """A picture of one game: every tensor of `game` is that of one row, without the axis B."""

    def success(self, game: Game) -> Tensor | None:
        """[B] bool, read where an episode has just ended; None if the game has no notion of success."""
        return None

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Open an episode everywhere.

        Args:
            seed: game i gets seed + i, or seed[i]; None continues with the next episodes of the seeds in use.
            options: none are known.
        """
        if options and "reset_mask" in options:
            raise ValueError(f"{type(self).__name__} resets ended episodes itself (SAME_STEP): no reset_mask")
        if seed is not None or not self.state:
            seeds = self._seeds(seed)
            episode = torch.zeros_like(seeds)
        else:
            seeds, episode = self.state["seed"], self.state["episode"] + 1
        self.state = self.opened(seeds, episode)
        return self.observe(self.state), {}

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Take one action in every game; where an episode ends, the observation is the next one's first.

        Args:
            actions: [B, ...] int64 or float32, as the action space of one game says.

        Returns:
            observation, reward [B] float32, terminated [B] bool, truncated [B] bool, infos. Where a row ended (on a
            GPU: always) infos hold `final_obs`, the observation of the state reached, with `_final_obs` [B] bool, and
            `is_success` [B] bool if the game knows success.
        """
        if not self.state:
            raise RuntimeError("call reset() before step()")
        self._check(actions)
        outcome = self.advance(self.state, actions)
        game = self.state | outcome.changes
        reward = outcome.reward.float()
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        terminated = never if outcome.terminated is None else outcome.terminated
        self.truncates = outcome.truncated is not None
        truncated = outcome.truncated if outcome.truncated is not None else never
        ended, seen = terminated | truncated, self.observe(game)
        if self.device.type == "cpu" and not bool(ended.any()):
            self.state = game
            return seen, reward, terminated, truncated, {}
        infos: dict[str, Any] = {"final_obs": seen, "_final_obs": ended}
        success = self.success(game)
        if success is not None:
            infos |= {"is_success": success & ended, "_is_success": ended}
        self.state = self._renew(game, ended)
        return self.observe(self.state), reward, terminated, truncated, infos

    def opened(self, seed: Tensor, episode: Tensor) -> Game:
        """Whole states, "seed" and "episode" included, at the start of these episodes."""
        return self.draw(seed, episode) | {"seed": seed, "episode": episode}

    def get_state(self) -> Game:
        """Everything that the future depends on besides actions, as tensors that the env never changes later."""
        if not self.state:
            raise RuntimeError("call reset() before get_state()")
        return {name: part.clone() for name, part in self.state.items()}

    def set_state(self, state: Game) -> Any:
        """Continue from `get_state()` of a game with the same options, bit for bit.

        Returns:
            the observation of that state.
        """
        probe = torch.zeros(1, dtype=torch.int64, device=self.device)
        wanted = self.state or self.opened(probe, probe)
        if set(state) != set(wanted):
            raise ValueError(f"state: expected the entries {sorted(wanted)}, got {sorted(state)}")
        for name, part in state.items():
            shape = (self.num_envs, *wanted[name].shape[1:])
            if tuple(part.shape) != shape:
                raise ValueError(f"state[{name!r}]: expected {list(shape)}, got {list(part.shape)}")
        self.state = {name: part.to(self.device, wanted[name].dtype, copy=True) for name, part in state.items()}
        return self.observe(self.state)

    def render(self) -> tuple[Any, ...] | None:
        """One text or picture a game, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        return tuple(self.drawn(row, self.render_mode) for row in range(self.num_envs))

    def drawn(self, row: int, mode: str) -> str | Picture:
        """Game `row` as "ansi" text or as an "rgb_array"."""
        if not self.state:
            raise RuntimeError("call reset() before render()")
        board = self.board({name: part[row].cpu() for name, part in self.state.items()})
        return board.text() if mode == "ansi" else board.picture()

    def _renew(self, game: Game, ended: Tensor) -> Game:
        """`game` with the next episode where `ended`."""
        episode = game["episode"] + ended
        if self.device.type != "cpu":
            fresh = self.opened(game["seed"], episode)
            return {name: torch.where(_add_axes(ended, part), fresh[name], part) for name, part in game.items()}
        rows = ended.nonzero().squeeze(1)
        fresh = self.opened(game["seed"][rows], episode[rows])
        if len(rows) == self.num_envs:
            return fresh
        return {name: part.index_copy(0, rows, fresh[name]) for name, part in game.items()}

    def _seeds(self, seed: int | Sequence[int] | None) -> Tensor:
        if seed is None:
            seed = int(self.np_random.integers(1 << 31))
        if isinstance(seed, int):
            seed = range(seed, seed + self.num_envs)
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}")
        return torch.tensor([to_signed(number) for number in seed], device=self.device)

    def _check(self, actions: Any) -> None:
        """Check the shape always, values only if that does not make a GPU wait."""
        wanted = (self.num_envs, *(self.single_action_space.shape or ()))
        if not isinstance(actions, Tensor):
            given = f"{type(actions).__module__}.{type(actions).__name__}; use torch.as_tensor(actions)"
            raise TypeError(f"{type(self).__name__}: actions: expected a torch.Tensor, got {given}")
        if tuple(actions.shape) != wanted:
            raise ValueError(f"{type(self).__name__}: actions: expected {list(wanted)}, got {list(actions.shape)}")
        if self._bound is None or actions.device.type != "cpu":
            return
        if actions.is_floating_point():
            raise ValueError(f"{type(self).__name__}: actions: expected integers, got {actions.dtype}")
        wrong = (actions < 0) | (actions >= self._bound)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            space, found = self.single_action_space, actions[row].tolist()
            raise ValueError(f"{type(self).__name__}: actions[{row}]: expected one of {space}, got {found}")


def _bound(space: gym.Space[Any], device: torch.device) -> Tensor | None:
    """Number of values of each entry of an action; None for real numbers."""
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return torch.tensor(int(space.n), device=device)
    if isinstance(space, spaces.MultiDiscrete):
        return torch.as_tensor(space.nvec, dtype=torch.int64, device=device)
    if isinstance(space, spaces.Box):
        return None
    raise ValueError(f"action space {space}: expected Discrete from 0, MultiDiscrete or Box")


def _add_axes(ended: Tensor, part: Tensor) -> Tensor:
    """`ended` [B] with as many axes as `part` [B, ...]."""
    return ended.view(-1, *[1] * (part.dim() - 1))
