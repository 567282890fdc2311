"""The T-maze: its stated returns, its penalties by hand, and its rules once more in plain Python."""

from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from rlmin.envs import register
from rlmin.envs.t_maze import DOWN, LEFT, RIGHT, UP, TMaze, TMazeEnv

register()

MAZES = [(4, False), (4, True), (1, False), (1, True), (7, False)]


def play(maze: TMaze, policy: Any, *, episodes: int, seed: int) -> Tensor:
    """Returns [episodes, B] of `policy(t, observation, memory) -> action`, memory the largest cue seen."""
    observation, _ = maze.reset(seed=seed)
    rows = []
    for _ in range(episodes):
        total = torch.zeros(maze.num_envs)
        memory = torch.zeros(maze.num_envs)
        over = torch.zeros(1, dtype=torch.bool)
        t = 0
        while not over.any():
            memory = torch.where((observation[:, 0] == 0) & (observation[:, 1] != 0), observation[:, 1], memory)
            observation, reward, over, truncated, _ = maze.step(policy(t, observation, memory))
            total, t = total + reward, t + 1
            assert not truncated.any()
        assert over.all() and t == maze.length + (3 if maze.active else 1)
        rows.append(total)
    return torch.stack(rows)


def oracle(t: int, observation: Tensor, memory: Tensor) -> Tensor:
    turn = torch.where(memory > 0, UP, DOWN)
    ahead = torch.where(memory == 0, LEFT, RIGHT)  # unread cue: go and read it
    return torch.where(observation[:, 0] == 1, turn, ahead)


@pytest.mark.parametrize(("length", "active"), MAZES)
def test_the_oracle_scores_exactly_one(length: int, active: bool) -> None:
    returns = play(TMaze(64, length=length, active=active), oracle, episodes=3, seed=0)
    assert torch.equal(returns, torch.ones(3, 64))


def test_the_oracle_without_its_memory_scores_less() -> None:
    returns = play(TMaze(64, length=4), lambda t, o, m: oracle(t, o, torch.ones(64)), episodes=20, seed=0)
    assert 0.45 < returns.mean() < 0.55


@pytest.mark.parametrize(("length", "active"), MAZES)
def test_right_then_a_coin_scores_one_half(length: int, active: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def coin(t: int, observation: Tensor, memory: Tensor) -> Tensor:
        sides = torch.randint(0, 2, (500,), generator=generator) * 2 + 1
        # the active maze leaves two spare steps: the coin is thrown at the last one
        last = t == length + (2 if active else 0)
        return sides if last else torch.full((500,), RIGHT)

    returns = play(TMaze(500, length=length, active=active), coin, episodes=8, seed=3)
    assert returns.mean() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    assert set(returns.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("length", "active"), MAZES)
def test_always_right_scores_zero(length: int, active: bool) -> None:
    returns = play(TMaze(8, length=length, active=active), lambda t, o, m: torch.full((8,), RIGHT), episodes=2, seed=0)
    assert not returns.any()


def test_a_random_walk_scores_about_minus_one() -> None:
    generator = torch.Generator().manual_seed(0)

    def walk(t: int, observation: Tensor, memory: Tensor) -> Tensor:
        return torch.randint(0, 4, (256,), generator=generator)

    assert play(TMaze(256, length=10), walk, episodes=10, seed=0).mean() == pytest.approx(-0.97, abs=0.03)
    assert play(TMaze(256, length=60), walk, episodes=2, seed=0).mean() == pytest.approx(-1.0, abs=0.02)


def test_rewards_and_observations_by_hand() -> None:
    env = TMazeEnv(length=2)
    seen, _ = env.reset(seed=0)
    goal = float(seen[1])
    assert seen.tolist() == [0.0, goal] and abs(goal) == 1
    told = [env.step(action) for action in (LEFT, RIGHT, RIGHT)]
    # t = 1: x = 0 < 1 lags;  t = 2: x = 1 < 2 lags;  t = 3 = length + 1 ends at the junction, on no goal
    assert [row[1] for row in told] == [-0.5, -0.5, 0.0]
    assert [row[0].tolist() for row in told] == [[0, 0], [0, 0], [1, 0]]
    assert [row[2] for row in told] == [False, False, True] and told[-1][4] == {"is_success": False}


def test_the_active_maze_shows_its_cue_once_and_forgives_the_way_to_it() -> None:
    env = TMazeEnv(length=2, active=True)
    seen, _ = env.reset(seed=1)
    assert seen.tolist() == [0, 0]
    told = [env.step(action) for action in (LEFT, LEFT, RIGHT, RIGHT, RIGHT)]
    cue = float(told[0][0][1])
    assert abs(cue) == 1
    assert told[1][0].tolist() == [0, 0], "the cue is shown the first time only"
    # start o = 1: x = 0 < 1 - 1 no;  x = 0 < 2 - 1 lags;  1 < 2 lags;  2 < 3 lags;  t = 5 ends
    assert [row[1] for row in told] == [0.0, -0.5, -0.5, -0.5, 0.0]


def test_the_goals_can_be_left_and_walls_stop() -> None:
    env = TMazeEnv(length=1, active=True)
    env.reset(seed=0)
    told = [env.step(action)[0].tolist() for action in (RIGHT, UP, RIGHT, DOWN)]
    assert told == [[1, 0], [1, 1], [1, 1], [1, 0]]


class Plain:
    """The rules of one maze, as the module's docstring tells them."""

    def __init__(self, length: int, active: bool, goal: int) -> None:
        self.length, self.o, self.goal = length, int(active), goal
        self.x, self.y, self.t, self.read = self.o, 0, 0, False

    def look(self) -> list[float]:
        if self.x == self.length + self.o:
            return [1.0, float(self.y)]
        cue = self.goal if self.x == 0 and not self.read else 0
        self.read = self.read or self.x == 0
        return [0.0, float(cue)]

    def step(self, action: int) -> tuple[list[float], float, bool]:
        self.t += 1
        junction = self.length + self.o
        if self.y == 0 and action in (RIGHT, LEFT):
            self.x = min(max(self.x + 1 - action, 0), junction)
        elif self.x == junction and action in (UP, DOWN):
            self.y = min(max(self.y + 2 - action, -1), 1)
        if self.t == self.length + 1 + 2 * self.o:
            return self.look(), float(self.y == self.goal), True
        return self.look(), -1 / self.length if self.x < self.t - self.o else 0.0, False


@pytest.mark.parametrize(("length", "active"), MAZES)
def test_the_tensor_maze_is_the_plain_maze_step_for_step(length: int, active: bool) -> None:
    maze, generator = TMaze(5, length=length, active=active), torch.Generator().manual_seed(length)
    observation, _ = maze.reset(seed=40)
    plain = [Plain(length, active, goal) for goal in maze.state["goal"].tolist()]
    assert observation.tolist() == [one.look() for one in plain]
    for _ in range(4 * (length + 3)):
        # mostly right, so that junction and goals are reached
        action = torch.randint(0, 8, (5,), generator=generator) % 5 % 4
        observation, reward, terminated, _, infos = maze.step(action)
        goals = maze.state["goal"].tolist()
        for i, one in enumerate(plain):
            seen, gain, over = one.step(int(action[i]))
            assert over == bool(terminated[i]) and float(reward[i]) == pytest.approx(gain)
            if over:
                assert infos["final_obs"][i].tolist() == seen
                assert bool(infos["is_success"][i]) == (one.y == one.goal)
                plain[i] = Plain(length, active, goals[i])
                seen = plain[i].look()
            assert observation[i].tolist() == seen


def test_the_two_mazes_differ_where_their_options_do() -> None:
    passive, active = TMaze(3, length=4), TMaze(3, length=4, active=True)
    assert not torch.equal(passive.reset(seed=0)[0], active.reset(seed=0)[0])


def test_goals_are_fair_and_independent_between_seeds_and_episodes() -> None:
    maze = TMaze(400, length=1)
    goals = [maze.reset(seed=0)[0][:, 1]] + [maze.reset()[0][:, 1] for _ in range(9)]
    table = torch.stack(goals)  # [episodes, B]
    assert abs(table.mean()) < 4 / table.numel() ** 0.5
    within, across = (table[1:] * table[:-1]).mean(), (table[:, 1:] * table[:, :-1]).mean()
    assert abs(within) < 0.08 and abs(across) < 0.08


def test_seeds_reproduce_and_lists_of_seeds_are_per_maze() -> None:
    maze = TMaze(64, length=2)
    first = maze.reset(seed=9)[0].clone()
    later = maze.reset()[0].clone()
    assert torch.equal(maze.reset(seed=9)[0], first) and torch.equal(maze.reset()[0], later)
    assert not torch.equal(first, later)
    assert torch.equal(maze.reset(seed=list(range(72, 8, -1)))[0], first.flip(0))
    with pytest.raises(ValueError, match="expected 64 seeds, got 2"):
        maze.reset(seed=[1, 2])


@pytest.mark.parametrize("id", ["rlmin/TMaze-v0", "rlmin/TMazeActive-v0"])
def test_gymnasium_finds_and_accepts_it(id: str) -> None:
    check_env(gym.make(id, length=3, render_mode="ansi").unwrapped)
    assert gym.make_vec(id, 2, length=3).reset(seed=0)[0].shape == (2, 2)
    env = gym.make(id, length=3, render_mode="ansi")
    env.reset(seed=0)
    picture = str(env.render())
    assert "A" in picture and "*" in picture and len(picture.splitlines()) == 3


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="length=0"):
        TMaze(2, length=0)
    with pytest.raises(RuntimeError, match="call reset"):
        TMaze(2).step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected \[3\], got \[2\]"):
        small, large = TMaze(2), TMaze(3)
        small.reset(seed=0)
        large.set_state(small.get_state())
