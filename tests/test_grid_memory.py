"""The memory levels are minigrid's own, step for step; what is remembered is worth what the file says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from minigrid.envs.memory import MemoryEnv
from torch import Tensor

from rlmin.envs import grid_views
from rlmin.envs.grid_layouts import LANE, LEVELS, lane, number_layouts, read_level, tables
from rlmin.envs.grid_memory import FORWARD, LEFT, RIGHT, VARIANTS, GridMemory, GridMemoryEnv
from rlmin.envs.minigrid_memory import MiniGridMemory

EAST, SOUTH, WEST, NORTH = range(4)
LARGE = [("S101", 3), ("S35Random", 7), ("S501", 3)]
EVERY = [*((level, view_size) for level in LEVELS for view_size in (3, 5, 7)), *LARGE]
GOES_NORTH = {"S7": 0.087, "S9": 0.067, "S13Random": 0.046, "S17Random": 0.035}
Policy = Callable[[], Tensor]


def original(level: str, view_size: int) -> Any:
    size, random_length = read_level(level)
    return MemoryEnv(size=size, random_length=random_length, agent_view_size=view_size)


def layout_of(env: Any) -> tuple[int, int]:
    """(kind, start x), read off minigrid's own level."""
    middle = env.height // 2
    end = env.success_pos[0] - 1
    cue, north = env.grid.get(1, middle - 1).type, env.grid.get(end + 1, middle - 2).type
    return 4 * (end - 4) * env.random_length + 2 * (cue == "ball") + (north == "key"), int(env.agent_pos[0])


def placed(env: GridMemory, kind: Any, x: Any, **others: Any) -> Any:
    """Set the start of these layouts, one a row; the observation."""
    state = {"kind": kind, "x": x, "y": env.middle, "direction": EAST, "t": 0, "seed": 0, "episode": 0} | others
    return env.set_state({name: torch.as_tensor(part).expand(env.num_envs) for name, part in state.items()})


class Walker:
    """Moves as an agent that remembers would: look back for the cue, note what is seen, walk to the twin.

    The cue or the order is in sight where the view would be another one if it were another one. It knows where it
    stands, which is worth less than 0.0002 (in the Random levels with a 7 x 7 view; elsewhere nothing).
    """

    def __init__(self, env: GridMemory) -> None:
        kinds, size = env.tables.ground.shape[:2]
        views = env.tables.views.view(kinds, size, LANE, 4, -1)
        kind = torch.arange(kinds)
        self.env, self.shows_cue, self.shows_order = env, *((views != views[kind ^ bit]).any(-1) for bit in (2, 1))
        self.cue = self.order = torch.zeros(env.num_envs, dtype=torch.bool)

    def __call__(self) -> Tensor:
        kind, x, y, facing, t = (self.env.state[name] for name in ("kind", "x", "y", "direction", "t"))
        place = kind, x, y - lane(self.env.size).start, facing
        self.cue = (self.cue & (t > 0)) | self.shows_cue[place]
        self.order = (self.order & (t > 0)) | self.shows_order[place]
        junction = self.env.tables.ends[kind // 4] + 1
        # from the junction of a short hallway a wide view reaches back to the cue, for fewer steps than from its middle
        there = (x > 4) & (junction <= self.env.view_size) & (self.env.view_size >= 7)
        back = ~self.cue & ~(there & (x < junction))
        twin = torch.where((kind & 1) != (kind >> 1 & 1), NORTH, SOUTH)
        ahead = torch.where(x < junction, EAST, torch.where(self.order, twin, NORTH))
        wanted = torch.where(back, WEST, ahead)
        turn = torch.where((wanted - facing) & 3 == 1, RIGHT, LEFT)
        return torch.where(wanted == facing, FORWARD, turn)


class Guesser:
    """Moves by the present view alone: east, look back at the junction, and turn as seen there; else guess.

    On the way to looking back it faces north, as it does when it has decided to go north: it then goes on with
    probability `p`.
    """

    def __init__(self, env: GridMemory, p: float) -> None:
        self.env, self.p, self.walker = env, p, Walker(env)
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> Tensor:
        kind, x, y, facing = (self.env.state[name] for name in ("kind", "x", "y", "direction"))
        north = (kind & 1) != (kind >> 1 & 1)
        informed = self.walker.shows_cue[kind, x, y - lane(self.env.size).start, facing] & north
        leaves = torch.rand(len(x), generator=self.generator) < self.p
        moves = torch.stack(
            (
                torch.full_like(x, LEFT),
                torch.full_like(x, FORWARD),
                torch.where(informed, RIGHT, LEFT),
                torch.where(leaves, FORWARD, LEFT),
            )
        )
        at_junction = x == self.env.tables.ends[kind // 4] + 1
        return torch.where(at_junction, moves.gather(0, facing[None])[0], FORWARD)


def returns(env: GridMemory, policy: Policy) -> Tensor:
    """[B] returns of the first episode of every row."""
    env.reset(seed=0)
    total = torch.zeros(env.num_envs)
    while (first := env.state["episode"] == 0).any():
        total += env.step(policy())[1] * first
    return total


def agree(mine: GridMemoryEnv, theirs: Any, policy: Callable[[], int]) -> int:
    """Play an episode in both, comparing everything; its steps."""
    steps = 0
    while True:
        action = policy()
        seen, reward, terminated, truncated, info = mine.step(np.int64(action))
        wanted, gain, over, cut, _ = theirs.step(action)
        steps += 1
        assert np.array_equal(seen["image"], wanted["image"]) and seen["image"].dtype == wanted["image"].dtype
        assert seen["direction"] == wanted["direction"]
        assert (reward, terminated, truncated) == (gain, over, cut)
        if over or cut:
            assert info == {"is_success": gain > 0}
            return steps


@pytest.mark.parametrize(("level", "view_size"), EVERY)
def test_every_step_is_minigrids(level: str, view_size: int) -> None:
    mine = GridMemoryEnv(level=level, view_size=view_size, actions=7, direction=True)
    theirs, rng = original(level, view_size), np.random.default_rng(view_size)
    assert isinstance(mine.inner, GridMemory)
    walker = Walker(mine.inner)
    p = [0.15, 0.15, 0.6, 0.025, 0.025, 0.025, 0.025]
    policies = (lambda: int(rng.choice(7, p=p)), lambda: int(walker()))
    for seed in range(12):
        wanted, _ = theirs.reset(seed=seed)
        seen = placed(mine.inner, *layout_of(theirs))
        assert np.array_equal(seen["image"][0], wanted["image"]) and seen["direction"] == wanted["direction"]
        steps = agree(mine, theirs, policies[seed % 2])
        if seed % 2:
            found = bool(mine.inner.success(mine.inner.state))
            assert found and steps < 5 * theirs.width, "the walker always finds the twin"


def test_an_end_at_the_last_step_is_minigrids() -> None:
    env, theirs = GridMemory(3, level="S7", actions=7), original("S7", 7)
    theirs.reset(seed=0)
    kind, x = layout_of(theirs)
    placed(env, kind, x)
    walk = [FORWARD] * (5 - x) + [LEFT if theirs.success_pos[1] < env.middle else RIGHT, FORWARD]
    for action in [6] * (env.max_steps - len(walk)) + walk:
        wanted = theirs.step(action)
        outcome = env.advance(env.state, torch.full((3,), action))
        env.state |= outcome.changes
    assert outcome.reward.tolist() == [wanted[1]] * 3 == [pytest.approx(0.1)] * 3
    assert wanted[2:4] == (True, True)
    assert outcome.terminated is not None and outcome.terminated.all()
    assert outcome.truncated is not None and outcome.truncated.all()


def test_time_runs_out_as_truncation_without_success() -> None:
    env = GridMemory(3, level="S7")
    env.reset(seed=0)
    told = [env.step(torch.full((3,), LEFT)) for _ in range(env.max_steps)]
    assert not any(row[3].any() for row in told[:-1]) and not any(row[1].any() for row in told)
    assert told[-1][3].all() and not told[-1][2].any() and not told[-1][4]["is_success"].any()


@pytest.mark.parametrize(("level", "view_size"), [("S7", 7), ("S13Random", 5), ("S17Random", 7)])
def test_a_wrong_view_is_noticed(level: str, view_size: int) -> None:
    """The comparison above can fail: without occlusion, or with the cue exchanged, some view is another one."""
    theirs, env = original(level, view_size), GridMemory(1, level=level, view_size=view_size)
    through = grid_views.views(env.tables.grid, view_size, lane(env.size), occlusion=False).flatten(0, 3)
    wrong = {"occlusion": 0, "cue": 0}
    for seed in range(12):
        wanted = theirs.reset(seed=seed)[0]["image"]
        kind, x = layout_of(theirs)
        assert np.array_equal(placed(env, kind, x)[0], wanted)
        place = env._place(torch.tensor(kind), torch.tensor(x), torch.tensor(env.middle)) * 4
        wrong["occlusion"] += not np.array_equal(through[place], wanted)
        wrong["cue"] += not np.array_equal(placed(env, kind ^ 2, x)[0], wanted)
    assert all(wrong.values())


@pytest.mark.parametrize("level", LEVELS)
def test_numbered_layouts_are_those_of_minigrids_seeds(level: str) -> None:
    theirs = original(level, 3)
    wanted = [layout_of((theirs.reset(seed=seed), theirs)[1]) for seed in range(40)]
    assert number_layouts(level, 40).tolist() == [list(pair) for pair in wanted]
    env = GridMemory(300, level=level, view_size=3, layouts=5)
    env.reset(seed=3)
    drawn = torch.stack((env.state["kind"], env.state["x"]), dim=1)
    assert {tuple(row) for row in drawn.tolist()} == set(wanted[:5]), "all five, and no other"


def test_it_is_the_wrapper_too() -> None:
    mine, theirs = GridMemoryEnv(level="S11", view_size=3, layouts=1), MiniGridMemory(level="S11", layouts=1)
    assert (mine.observation_space, mine.action_space) == (theirs.observation_space, theirs.action_space)
    seen, wanted = mine.reset(seed=0)[0], theirs.reset(seed=0)[0]
    for action in [LEFT, LEFT, *[FORWARD] * 7, LEFT, LEFT, *[FORWARD] * 12, LEFT, FORWARD]:
        assert np.array_equal(seen, wanted)
        told, other = mine.step(np.int64(action)), theirs.step(action)
        seen, wanted = told[0], other[0]
        assert told[1:] == other[1:]
    assert told[2]


@pytest.mark.parametrize("level", LEVELS)
def test_fresh_layouts_have_minigrids_distribution(level: str) -> None:
    """Chi-square of (hallway, cue, order, start) against uniform ends, then uniform starts; 5 standard deviations."""
    env = GridMemory(40_000, level=level, view_size=3)
    env.reset(seed=1)
    kind, x = env.state["kind"], env.state["x"]
    assert set(env.state["y"].tolist()) == {env.middle} and not env.state["direction"].any()
    kinds, ends = len(env.tables.ground), env.tables.ends.repeat_interleave(4)
    found = torch.bincount(kind * env.size + x, minlength=kinds * env.size).view(kinds, env.size)
    start = torch.arange(env.size)
    inside = (start >= 1) & (start <= ends[:, None])
    expected = inside / (ends[:, None] * kinds) * env.num_envs
    assert not found[~inside].any()
    chi = float(((found - expected) ** 2 / expected)[inside].sum())
    freedom = int(inside.sum()) - 1
    assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5
    swapped = ((found.flip(1) - expected) ** 2 / expected)[inside].sum()
    assert float(swapped) > freedom + 5 * (2 * freedom) ** 0.5, "the same test sees starts counted from the other end"


def test_walls_hide_and_light_leaks_between_their_corners() -> None:
    """Minigrid's sweep by hand, rows from far to near: a wall; a gap in it; a gap between two corners."""
    view = torch.full((5, 5), grid_views.EMPTY, dtype=torch.uint8)
    view[:, 2] = grid_views.WALL
    assert grid_views.lit(view).T.int().tolist() == [[0] * 5] * 2 + [[1] * 5] * 3
    view[2, 2] = grid_views.EMPTY
    assert grid_views.lit(view).all(), "one open cell lights the whole row behind it"
    view = torch.full((5, 5), grid_views.WALL, dtype=torch.uint8)
    view[2, 4] = view[1, 3] = grid_views.EMPTY
    expected = [[0] * 5, [0] * 5, [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert grid_views.lit(view).T.int().tolist() == expected


@pytest.mark.parametrize("id", VARIANTS)
def test_returns_are_the_stated_ones(id: str) -> None:
    """Ceiling: the walker. Floor: the guesser. To within 5 standard errors and the rounding of what is stated."""
    variant, rows = VARIANTS[id], 768
    env, generator = GridMemory(rows, **variant.options), torch.Generator().manual_seed(1)
    p = GOES_NORTH.get(env.level, 1.0) if env.view_size == 7 else 1.0
    played: list[tuple[Policy, float | None]] = [(Walker(env), variant.ceiling), (Guesser(env, p), variant.floor)]
    if env.view_size == 3:  # random play is the same whatever it sees
        played.append((lambda: torch.randint(0, 3, (rows,), generator=generator), variant.random))
    for policy, stated in played:
        found = returns(env, policy)
        assert found.mean().item() == pytest.approx(stated, abs=5e-4 + 5 * found.std().item() / rows**0.5)


def test_rows_are_single_games_and_resume_bit_for_bit() -> None:
    env, rng = GridMemory(3, level="S7", view_size=5, direction=True), np.random.default_rng(0)
    singles = [GridMemoryEnv(level="S7", view_size=5, direction=True) for _ in range(3)]
    seen, _ = env.reset(seed=[11, 5, 7])
    alone = [single.reset(seed=seed)[0] for single, seed in zip(singles, (11, 5, 7), strict=True)]
    for t in range(280):
        for row, one in enumerate(alone):
            assert all(np.array_equal(seen[name][row], one[name]) for name in one)
        actions = rng.choice(3, size=3, p=[0.15, 0.15, 0.7])
        if t == 60:
            other = GridMemory(3, level="S7", view_size=5, direction=True)
            other.set_state(env.get_state())
            env = other
        seen, reward, terminated, truncated, infos = env.step(torch.as_tensor(actions))
        for row, single in enumerate(singles):
            one, gain, over, cut, info = single.step(actions[row])
            assert np.float32(gain) == reward[row] and (over, cut) == (bool(terminated[row]), bool(truncated[row]))
            if over or cut:
                assert all(np.array_equal(infos["final_obs"][name][row], one[name]) for name in one)
                assert info["is_success"] == bool(infos["is_success"][row])
                one, _ = single.reset()
            alone[row] = one
    assert int(env.state["episode"].min()) >= 1, "every row has ended an episode"


def test_a_share_of_the_episodes_can_start_beside_the_cue() -> None:
    rows, near = 40_000, 0.3
    for level in ("S11", "S17Random"):
        plain, env = GridMemory(rows, level=level), GridMemory(rows, level=level, near=near)
        plain.reset(seed=5)
        env.reset(seed=5)
        assert torch.equal(env.state["kind"], plain.state["kind"]), "nothing else changes"
        beside = (env.state["x"] == 1).double().mean()
        wanted = near + (1 - near) * (1 / env.tables.ends).mean()
        error = 5 * (wanted * (1 - wanted) / rows) ** 0.5
        assert abs(beside - wanted) < error < abs((plain.state["x"] == 1).double().mean() - wanted)
        seen = env.tables.views[(env._place(env.state["kind"], env.state["x"], env.state["y"]) * 4)][..., 0]
        cue = ((seen == 5) | (seen == 6)).flatten(1).any(1)  # minigrid's key and ball
        assert bool(cue[env.state["x"] == 1].all()), "the cue is in sight"


@pytest.mark.parametrize(
    "level", ["S8", "S5", "S503", "S103Random", "17", "S17random", "S9 ", "", "S09", "S\u0669", 9, None]
)
def test_other_levels_are_refused(level: Any) -> None:
    message = f"level={level!r}: expected S7, S9, .* an odd size from 7 to 501, or to 101 with Random"
    for make in (GridMemory, MiniGridMemory):
        with pytest.raises(ValueError, match=message):
            make(level=level)


def test_errors_are_named() -> None:
    for options, message in (
        ({"view_size": 4}, "view_size=4: expected an odd number"),
        ({"layouts": 0}, "layouts=0: expected at least 1"),
        ({"actions": 5}, "actions=5: expected 3, or 7"),
        ({"near": 1.5}, r"near=1.5, layouts=None: expected near in \[0, 1\]"),
        ({"near": 0.5, "layouts": 9}, "near=0.5, layouts=9: .* 0 with numbered layouts"),
    ):
        with pytest.raises(ValueError, match=message):
            GridMemory(2, **options)


def test_tables_are_small_and_shared() -> None:
    assert tables("S17Random", 7) is tables("S17Random", 7)
    assert tables("S17Random", 7).views.nbytes < 3e6
    assert tables("S501", 7).views.nbytes < 6e6


@pytest.mark.parametrize("view_size", [3, 7])
def test_the_picture_shows_what_minigrid_says_is_seen(view_size: int) -> None:
    env, theirs = (
        GridMemoryEnv(level="S13Random", view_size=view_size, render_mode="ansi"),
        original("S13Random", view_size),
    )
    assert isinstance(env.inner, GridMemory)
    for seed in range(6):
        theirs.reset(seed=seed)
        kind, x = layout_of(theirs)
        theirs.agent_dir = seed % 4
        placed(env.inner, kind, x, direction=theirs.agent_dir)
        visible = theirs.gen_obs_grid()[1]
        for y, line in enumerate(env.render().splitlines()[: theirs.height]):
            for i, mark in enumerate(line.split()):
                at = theirs.relative_coords(i, y)
                wanted = at is not None and visible[at]
                if mark not in "+-":
                    assert (mark in "oXKB>v<^") == wanted
