"""Battleship and MineSweeper: step for step as the originals, and their stated returns."""

import itertools
from typing import Any

import popgym.envs.battleship as popgym_battleship
import popgym.envs.minesweeper as popgym_minesweeper
import pytest
import torch
from game_laws import Policy, agrees, disagreements, halves, returns
from scipy.stats import chi2_contingency, chisquare
from torch import Tensor

from rlmin.envs import battleship, minesweeper
from rlmin.envs.battleship import SHIPS, Battleship, places
from rlmin.envs.minesweeper import MineSweeper, around
from rlmin.envs.tensor_env import Variant

VARIANTS: dict[str, Variant] = battleship.VARIANTS | minesweeper.VARIANTS
LEVELS = ("Easy", "Medium", "Hard")
levels = pytest.mark.parametrize("level", LEVELS)


def made(id: str, num_envs: int) -> Any:
    game = Battleship if id.startswith("Battleship") else MineSweeper
    return game(num_envs, **VARIANTS[f"{id}-v0"].options)


# Policies. Each remembers what it needs of one episode of B rows, and nothing else.


def cell(index: Tensor, size: int) -> Tensor:
    return torch.stack((index // size, index % size), dim=1)


def anywhere(size: int, rows: int) -> Policy:
    generator = torch.Generator().manual_seed(0)
    return lambda t, seen: torch.randint(size, (rows, 2), generator=generator)


def sweep(size: int, rows: int) -> Policy:
    return lambda t, seen: cell(torch.full((rows,), t), size)


def each_once(size: int, rows: int) -> Policy:
    order = torch.rand(rows, size**2, generator=torch.Generator().manual_seed(1)).argsort(dim=1)
    return lambda t, seen: cell(order[:, t], size)


class Search:
    """Battleship: shoot where the most places of a ship are left, each tenfold for every hit that it covers."""

    def __init__(self, size: int, rows: int) -> None:
        self.size = size
        self.places = torch.cat([places(ship, size) for ship in SHIPS])
        self.hit, self.miss = torch.zeros(rows, size**2), torch.zeros(rows, size**2)
        self.last = torch.zeros(rows, 1, dtype=torch.int64)

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        if t:
            self.hit.scatter_add_(1, self.last, seen.unsqueeze(1).float())
            self.miss.scatter_add_(1, self.last, 1 - seen.unsqueeze(1).float())
        left = (self.miss @ self.places.T) == 0
        score = (left * 10 ** (self.hit @ self.places.T)) @ self.places + 1e-3
        self.last = (score * (self.hit + self.miss == 0)).argmax(dim=1, keepdim=True)
        return cell(self.last.squeeze(1), self.size)


class Deduction:
    """MineSweeper: open what one count proves clear, else the cell whose worst count makes a mine least likely."""

    def __init__(self, size: int, rows: int, mines: int) -> None:
        self.size, self.mines, self.around = size, mines, around(size)
        self.open, self.count, self.mine, self.clear = (torch.zeros(rows, size**2) for _ in range(4))
        self.last = torch.zeros(rows, 1, dtype=torch.int64)

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        if t:
            self.open.scatter_(1, self.last, 1.0)
            self.count.scatter_(1, self.last, seen.unsqueeze(1).float())
        for _ in range(4):
            unknown = ((self.open + self.mine + self.clear) == 0).float()
            hidden, rest = unknown @ self.around, self.count - self.mine @ self.around
            proven = (self.open * (rest == hidden)) @ self.around > 0
            cleared = (self.open * (rest == 0)) @ self.around > 0
            self.mine = self.mine + unknown * proven
            self.clear = self.clear + unknown * (cleared & ~proven)
        unknown = ((self.open + self.mine + self.clear) == 0).float()
        hidden, rest = unknown @ self.around, self.count - self.mine @ self.around
        share = (self.open * rest / hidden.clamp(min=1)).unsqueeze(1) * self.around
        plain = (self.mines - self.mine.sum(1)) / unknown.sum(1).clamp(min=1)
        told = (self.open @ self.around) > 0
        risk = torch.where(told, share.amax(dim=2), plain.unsqueeze(1))
        risk = torch.where(self.clear > 0, -1.0, risk) + 9 * self.mine + 99 * self.open
        self.last = risk.argmin(dim=1, keepdim=True)
        return cell(self.last.squeeze(1), self.size)


# Differential tests


def beside_originals(game: str, module: Any, rows: int) -> tuple[Any, list[Any]]:
    """So many games here and in popgym's module, all of them reset."""
    env, originals = made(game, rows), [getattr(module, game)() for _ in range(rows)]
    assert env.single_action_space == originals[0].action_space
    assert env.single_observation_space == originals[0].observation_space
    assert [original.reset(seed=7 + row)[0] for row, original in enumerate(originals)] == [0] * rows
    env.reset(seed=0)
    return env, originals


@levels
def test_battleship_is_the_original(level: str) -> None:
    rows = 120
    env, originals = beside_originals(f"Battleship{level}", popgym_battleship, rows)
    ship = torch.stack([torch.as_tensor(original.board).flatten().bool() for original in originals])
    seen = env.set_state(env.get_state() | {"ship": ship})
    assert not seen.any()
    policy = halves(anywhere(env.size, rows), Search(env.size, rows))
    assert disagreements(env, originals, seen, policy) == 0


def test_a_sweep_sinks_the_last_ship_with_the_last_shot() -> None:
    """Both ends at once."""
    env, original = Battleship(1, size=8), popgym_battleship.BattleshipEasy()
    original.reset(seed=0)
    env.reset(seed=0)
    corner = torch.zeros(8, 8, dtype=torch.bool)
    corner[7, -2:] = corner[6, -3:] = corner[5, -3:] = corner[4, -4:] = True
    original.board = corner.numpy().astype("int8")
    env.set_state(env.get_state() | {"ship": corner.view(1, 64)})
    for t in range(64):
        *_, over, cut, infos = env.step(cell(torch.tensor([t]), 8))
        *_, theirs, cut_there, _ = original.step((t // 8, t % 8))
    assert (theirs, cut_there) == (True, True)
    assert (over.item(), cut.item(), infos["is_success"].item()) == (True, True, True)


def test_another_board_is_noticed() -> None:
    env, original = Battleship(2, size=8), [popgym_battleship.BattleshipEasy() for _ in range(2)]
    for row in range(2):
        original[row].reset(seed=row)
    env.reset(seed=0)
    assert disagreements(env, original, env.observe(env.state), sweep(8, 2)) > 0


def law(size: int, ships: tuple[int, int]) -> dict[tuple[int, ...], float]:
    """Boards of two ships and their chances: every place of the first, every free place of the second."""
    sides = [[tuple(row.nonzero().flatten().tolist()) for row in places(ship, size)] for ship in ships]
    chances: dict[tuple[int, ...], float] = {}
    for first in sides[0]:
        free = [second for second in sides[1] if not set(first) & set(second)]
        for second in free:
            board = tuple(sorted(first + second))
            chances[board] = chances.get(board, 0.0) + 1 / len(sides[0]) / len(free)
    return chances


def test_ships_are_placed_by_the_law_of_the_original() -> None:
    size, ships, many, some = 4, (2, 3), 60_000, 1_500
    chances = law(size, ships)
    boards, expected = list(chances), torch.tensor(list(chances.values()), dtype=torch.float64)
    number = {board: i for i, board in enumerate(boards)}
    env = Battleship(many, size=size, ships=ships)
    env.reset(seed=0)
    found = torch.tensor([number[tuple(row)] for row in env.state["ship"].nonzero()[:, 1].view(many, 5).tolist()])
    counts = torch.bincount(found, minlength=len(boards))
    assert chisquare(counts, many * expected).pvalue > 1e-3
    assert chisquare(counts, torch.full((len(boards),), many / len(boards))).pvalue < 1e-6, "not all boards alike"
    original = popgym_battleship.Battleship(board_size=size, ship_sizes=list(ships))
    original.reset(seed=0)
    drawn = torch.zeros(size**2)
    for _ in range(some):
        original.reset()
        drawn[int(original.board.argmax())] += 1
    first = torch.zeros(size**2, dtype=torch.float64)
    for board, chance in chances.items():
        first[board[0]] += chance
    possible = first > 0
    assert chisquare(drawn[possible], some * first[possible]).pvalue > 1e-3


def test_four_ships_lie_where_those_of_the_original_lie() -> None:
    original, some = popgym_battleship.BattleshipEasy(), 1_500
    original.reset(seed=1)
    theirs = torch.zeros(2, 64)
    for _ in range(some):
        original.reset()
        flat = original.board.flatten()
        theirs[0, int(flat.argmax())] += 1
        theirs[1, int(flat.reshape(8, 8).T.argmax())] += 1
    env = Battleship(10 * some, size=8)
    env.reset(seed=0)
    board = env.state["ship"].view(-1, 8, 8)
    for axis, seen in enumerate((board, board.transpose(1, 2))):
        ours = torch.bincount(seen.flatten(1).int().argmax(dim=1), minlength=64).float()
        table = torch.stack((theirs[axis], ours))[:, (ours + theirs[axis]) > 50]
        assert chi2_contingency(table).pvalue > 1e-3
        assert chi2_contingency(torch.stack((table[0], table[1].roll(1)))).pvalue < 1e-6, "one cell further"


@levels
def test_minesweeper_is_the_original(level: str) -> None:
    rows = 240
    env, originals = beside_originals(f"MineSweeper{level}", popgym_minesweeper, rows)
    field = torch.stack([torch.as_tensor(original.hidden_grid).flatten() for original in originals])
    near = torch.stack([torch.as_tensor(original.neighbor_grid).flatten() for original in originals])
    assert torch.equal(near, (field.float() @ around(env.size)).to(near.dtype))
    spied = field.clone()

    def knowing(t: int, seen: Tensor) -> Tensor:
        """Opens clear cells alone but for one waste in four rows: the field is cleared, or time runs out."""
        closed = (spied == 0).float() + torch.arange(env.size**2) / 1e4
        index = closed.argmax(dim=1)
        index = torch.where((torch.arange(rows) % 4 == 1) & (t == 3), 0 * index + last[0], index)
        last[0] = index
        spied.scatter_(1, index.unsqueeze(1), 2)
        return cell(index, env.size)

    last = [torch.zeros(rows, dtype=torch.int64)]
    seen = env.set_state(env.get_state() | {"field": field.to(torch.uint8), "near": near.to(torch.uint8)})
    policy = halves(anywhere(env.size, rows), knowing)
    assert disagreements(env, originals, seen, policy) == 0


def test_counts_include_the_cell_itself() -> None:
    env = MineSweeper(1, size=4, mines=2)
    env.reset(seed=0)
    mine = int((env.state["field"][0] == minesweeper.MINE).nonzero()[0])
    _, reward, over, _, infos = env.step(cell(torch.tensor([mine]), 4))
    assert over.item() and infos["final_obs"].item() >= 1 and reward.item() == pytest.approx(-0.5 - 1 / 14)
    assert not infos["is_success"].item()


def test_another_field_is_noticed() -> None:
    env, originals = MineSweeper(5), [popgym_minesweeper.MineSweeperEasy() for _ in range(5)]
    for row, original in enumerate(originals):
        original.reset(seed=row)
    env.reset(seed=0)
    assert disagreements(env, originals, env.observe(env.state), sweep(4, 5)) > 0


def test_every_set_of_mines_is_as_likely() -> None:
    env = MineSweeper(24_000, size=4, mines=2)
    env.reset(seed=0)
    pairs = env.state["field"].nonzero()[:, 1].view(-1, 2)
    number = {pair: i for i, pair in enumerate(itertools.combinations(range(16), 2))}
    counts = torch.bincount(torch.tensor([number[tuple(pair)] for pair in pairs.tolist()]), minlength=120)
    assert chisquare(counts).pvalue > 1e-3


# Stated returns


@levels
def test_battleship_scores_as_stated(level: str) -> None:
    variant, rows = VARIANTS[f"Battleship{level}-v0"], 150
    size = int(variant.options["size"])
    search = returns(made(f"Battleship{level}", rows), Search(size, rows), seed=9)
    assert agrees(search, variant.ceiling)
    many = 1_000
    random = returns(made(f"Battleship{level}", many), anywhere(size, many), seed=5)
    assert variant.random is not None and agrees(random, variant.random)
    swept = returns(made(f"Battleship{level}", many), sweep(size, many), seed=3)
    assert agrees(swept, {"Easy": 0.165, "Medium": 0.172, "Hard": 0.177}[level])
    once = returns(made(f"Battleship{level}", many), each_once(size, many), seed=1)
    last = 12 * (size**2 + 1) / 13  # mean place of the last of 12 in a random order
    assert agrees(once, 1 - (last - 12) / (size**2 - 12))


@levels
def test_minesweeper_scores_as_stated(level: str) -> None:
    variant, rows = VARIANTS[f"MineSweeper{level}-v0"], 600
    size, mines = variant.options["size"], variant.options["mines"]
    assert agrees(returns(made(f"MineSweeper{level}", rows), Deduction(size, rows, mines), seed=9), variant.ceiling)
    many = 4_000
    random = returns(made(f"MineSweeper{level}", many), anywhere(size, many), seed=5)
    assert variant.random is not None and agrees(random, variant.random)


@pytest.mark.parametrize(("size", "ships"), [(5, SHIPS), (8, (9,)), (8, ()), (8, (0, 2))])
def test_ships_that_find_no_place_are_refused(size: int, ships: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected ships that always find a place"):
        Battleship(1, size=size, ships=ships)


def test_too_many_mines_are_refused() -> None:
    with pytest.raises(ValueError, match="mines=14"):
        MineSweeper(1, size=4, mines=14)
