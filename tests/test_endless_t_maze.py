"""The Endless T-maze: its stated returns, and its rules once more in plain Python."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlmin.envs.endless_t_maze import FORWARD, LEFT, PENALTY, RIGHT, VARIANTS, EndlessTMaze

MAZES = [(5, 10, False), (5, 10, True), (1, 1, False), (3, 4, True)]
every_maze = pytest.mark.parametrize(("corridors", "length", "uniform"), MAZES)
Player = Callable[[Tensor, Tensor], Tensor]  # what is seen, and the last cue seen -> actions


def play(maze: EndlessTMaze, player: Player, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns and successes of the first episode of each row."""
    seen, _ = maze.reset(seed=seed)
    total, success = torch.zeros(maze.num_envs), torch.zeros(maze.num_envs, dtype=torch.bool)
    running, cue = torch.ones(maze.num_envs, dtype=torch.bool), torch.zeros(maze.num_envs, dtype=torch.int64)
    for _ in range(maze.steps):
        cue = torch.where(seen[:, 1] == 1, RIGHT, torch.where(seen[:, 0] == 1, LEFT, cue))
        seen, reward, terminated, truncated, infos = maze.step(player(seen, cue))
        total += reward * running
        over = terminated | truncated
        if bool(over.any()):
            success |= running & over & infos["is_success"]
        running &= ~over
    assert not running.any()
    return total, success


def oracle(seen: Tensor, cue: Tensor) -> Tensor:
    return torch.where(seen[:, 2] == 1, cue, FORWARD)


@every_maze
def test_the_oracle_turns_right_everywhere(corridors: int, length: int, uniform: bool) -> None:
    maze = EndlessTMaze(100, corridors=corridors, length=length, uniform=uniform)
    maze.reset(seed=0)
    steps = maze.state["length"].sum(1)
    total, success = play(maze, oracle)
    torch.testing.assert_close(total, corridors - PENALTY * steps)
    assert success.all()


@pytest.mark.parametrize("id", VARIANTS)
def test_returns_are_as_stated(id: str) -> None:
    variant, generator = VARIANTS[id], torch.Generator().manual_seed(0)

    def coin(seen: Tensor, cue: Tensor) -> Tensor:
        return oracle(seen, torch.randint(0, 2, cue.shape, generator=generator))

    def anything(seen: Tensor, cue: Tensor) -> Tensor:
        return torch.randint(0, 3, cue.shape, generator=generator)

    ceiling, _ = play(EndlessTMaze(500, **variant.options), oracle)
    floor, success = play(EndlessTMaze(2500, **variant.options), coin)
    random, _ = play(EndlessTMaze(2500, **variant.options), anything)
    assert float(ceiling.mean()) == pytest.approx(variant.ceiling, abs=0.03)
    assert float(floor.mean()) == pytest.approx(variant.floor, abs=5 * float(floor.std()) / 2500**0.5)
    assert variant.random is not None
    assert float(random.mean()) == pytest.approx(variant.random, abs=0.05)
    assert float(success.float().mean()) == pytest.approx(2.0**-5, abs=0.018)


def test_who_keeps_the_first_cue_fails_at_a_later_one() -> None:
    first = torch.zeros(0)

    def clinging(seen: Tensor, cue: Tensor) -> Tensor:
        nonlocal first
        first = cue if not len(first) else first
        return oracle(seen, first)

    _, success = play(EndlessTMaze(1000), clinging)
    assert float(success.float().mean()) < 0.15


class Plain:
    """The rules of one maze, as the module's docstring tells them."""

    def __init__(self, cues: list[int], lengths: list[int], limit: int) -> None:
        self.cues, self.lengths, self.limit = cues, lengths, limit
        self.n, self.x, self.t = 0, 0, 0

    def look(self) -> list[float]:
        if self.n == len(self.cues):
            return [0.0, 0.0, 0.0]
        cue = self.cues[self.n] if self.x == 0 else None
        return [float(cue == LEFT), float(cue == RIGHT), self.x / self.lengths[self.n]]

    def step(self, action: int) -> tuple[float, bool, bool]:
        self.t += 1
        if self.x < self.lengths[self.n]:
            self.x += action == FORWARD
            return -PENALTY, False, self.t == self.limit
        if action != self.cues[self.n]:
            return -1.0, True, False
        self.n, self.x = self.n + 1, 0
        return 1.0, self.n == len(self.cues), self.n < len(self.cues) and self.t == self.limit


@every_maze
def test_the_tensor_maze_is_the_plain_maze_step_for_step(corridors: int, length: int, uniform: bool) -> None:
    maze = EndlessTMaze(6, corridors=corridors, length=length, uniform=uniform)
    generator = torch.Generator().manual_seed(length)

    def plain(row: int) -> Plain:
        state = maze.state
        return Plain(state["cue"][row].tolist(), state["length"][row].tolist(), 6 * (length + 1) * corridors)

    seen, _ = maze.reset(seed=7)
    games = [plain(row) for row in range(6)]
    ends = set()
    for _ in range(14 * (length + 1) * corridors):
        chance = torch.rand(6, generator=generator)
        knowing = [game.cues[game.n] if game.x == game.lengths[game.n] else FORWARD for game in games]
        idle = torch.arange(6) == 5  # one row walks so slowly that it is truncated
        action = torch.where(chance < 0.97, torch.tensor(knowing), torch.randint(0, 3, (6,), generator=generator))
        action = torch.where(idle, LEFT, action) if corridors > 1 else action
        seen, reward, terminated, truncated, infos = maze.step(action)
        for row, game in enumerate(games):
            gain, over, cut = game.step(int(action[row]))
            assert float(reward[row]) == pytest.approx(gain)
            assert (over, cut) == (bool(terminated[row]), bool(truncated[row]))
            ends |= {(over, cut)}
            if over or cut:
                assert infos["final_obs"][row].tolist() == pytest.approx(game.look())
                assert bool(infos["is_success"][row]) == (game.n == corridors)
                games[row] = plain(row)
            assert seen[row].tolist() == pytest.approx(games[row].look())
    assert (True, False) in ends and ((False, True) in ends or corridors == 1)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="corridors=0, length=3: expected at least 1"):
        EndlessTMaze(2, corridors=0, length=3)
