"""Native environments: steps per second by the number of games, beside the originals one game at a time.

Every row steps B games with random actions drawn beforehand; resets are included. The originals (popgym, minigrid) are
their own packages and step one game in plain Python.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from rlmin.bench.options import Options
from rlmin.bench.report import Table, Target, limit, plain_log
from rlmin.bench.timing import Case
from rlmin.vector import make_vec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAMES = {  # ours -> the original's id, or None; and the target at B = 1024, million steps a second
    "rlmin/TMaze-v0": (None, 1.0),
    "rlmin/RepeatPreviousEasy-v0": ("popgym-RepeatPreviousEasy-v0", 1.0),
    "rlmin/CountRecallEasy-v0": ("popgym-CountRecallEasy-v0", 1.0),
    "rlmin/ConcentrationEasy-v0": ("popgym-ConcentrationEasy-v0", 1.0),
    "rlmin/BattleshipEasy-v0": ("popgym-BattleshipEasy-v0", None),
    "rlmin/MineSweeperEasy-v0": ("popgym-MineSweeperEasy-v0", None),
    "rlmin/MultiarmedBanditEasy-v0": ("popgym-MultiarmedBanditEasy-v0", None),
    "rlmin/GridMemoryS9View3-v0": ("MiniGrid-MemoryS9-v0", 0.3),
    "rlmin/GridMemoryS17Random-v0": ("MiniGrid-MemoryS17Random-v0", 0.3),
    "rlmin/PositionOnlyCartPoleEasy-v0": ("popgym-PositionOnlyCartPoleEasy-v0", 2.0),
    "rlmin/PositionOnlyPendulumEasy-v0": ("popgym-PositionOnlyPendulumEasy-v0", 2.0),
}
ROWS = (1, 16, 256, 1024, 4096)
LARGE = (16384, 65536)  # on an accelerator
STEPS = 64  # of a turn


def run(options: Options) -> Table:
    """Measure every game at every B."""
    table = Table()
    sizes = (1, 16) if options.quick else ROWS if options.device == "cpu" else ROWS + LARGE
    for id, (original, wanted) in GAMES.items():
        cases: dict[str, Case] = {str(B): _many(id, B, options.device) for B in sizes}
        if original is not None:
            try:
                cases["original"] = _one(original)
            except ImportError as error:
                table.skip(f"{error}: pip install popgym", {"game": id, "games at once": "original"})
        timing = options.measure(id, cases, rounds=5, seconds=6)
        for case in cases:
            B = 1 if case == "original" else int(case)
            speed = STEPS * B / timing.median(case)
            table.add({"game": id, "games at once": case, "us a step": 1e6 / speed * B, "steps per second": speed})
            if case == "1024" and wanted is not None:
                table.targets.append(Target(f"{id}, million steps a second", speed / 1e6, wanted, at_most=False))
    return table


def draw(table: Table, figure: "Figure") -> None:
    """Steps per second over games at once; the originals as dots."""
    axes = figure.subplots()
    for number, id in enumerate(table.each("game")):
        rows = [row for row in table.where(game=id) if row["games at once"] != "original"]
        name = id.removeprefix("rlmin/").removesuffix("-v0")
        x = [int(str(row["games at once"])) for row in rows]
        speed = [float(row["steps per second"] or 0) for row in rows]
        axes.plot(x, speed, "-" if number < 10 else "--", color=f"C{number % 10}", label=name)
        for row in table.where(game=id, **{"games at once": "original"}):
            axes.plot(1, float(row["steps per second"] or 0), "o", color=f"C{number % 10}")
    plain_log(axes, x=True, y=True)
    limit(axes, 1e6, "one million")
    axes.set_xlabel("games at once (dots: the original, one game)")
    axes.set_ylabel("environment steps per second")
    axes.legend(fontsize="x-small", ncols=2)


def _many(id: str, B: int, device: str) -> Case:
    env = make_vec(id, B, device=device, seed=0)
    space: Any = env.single_action_space
    stream = np.random.default_rng(0)
    drawn: Any
    if isinstance(space, gym.spaces.Box):
        drawn = stream.uniform(space.low, space.high, (STEPS, B, *space.shape)).astype(np.float32)
    else:
        top = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
        drawn = stream.integers(top, size=(STEPS, B, *space.shape))
    actions = torch.as_tensor(drawn, device=device)

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def _one(id: str) -> Callable[[], None]:
    """STEPS steps of the original."""
    if id.startswith("popgym"):
        import popgym  # noqa: F401  (registers its ids)
    else:
        import minigrid  # noqa: F401
    env = gym.make(id, disable_env_checker=True)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(STEPS)]

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return play
