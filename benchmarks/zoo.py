"""The zoo: train a preset small enough to ship, and pack its policy with card, curve and score.

    python benchmarks/zoo.py                    every preset that has no policy yet, one after the other
    python benchmarks/zoo.py tmaze              this one, trained anew
    python benchmarks/zoo.py tmaze --run RUN    pack a run that was trained by the command below

Each is trained by `rlmin train NAME --width W --seed 0 --threads 1`; W keeps the file below 200 KB. The score is that
of 200 greedy episodes of the packed policy, in the environment of its training.
"""

import argparse
import json
import shutil
from pathlib import Path

from rlmin import load
from rlmin.cli import main
from rlmin.commands.evaluate import evaluate_run
from rlmin.commands.preset_files import preset_names
from rlmin.files.atomic import write_atomic
from rlmin.interop.model_card import CARD, LOCAL, card
from rlmin.runs.checkpoint import POLICY
from rlmin.runs.policy_zoo import POLICIES, PREFIX, SCORE, zoo_names

WIDTH = {"pendulum-novel": 40}
"""Widths that differ from SMALL: two memories instead of one."""
SMALL = 48
LARGEST = 200_000
"""Bytes of a policy."""
EPISODES, SEED = 200, 10_000


def arguments_of(name: str) -> list[str]:
    """What follows `rlmin` to train a policy of the zoo."""
    return ["train", name, "--width", str(WIDTH.get(name, SMALL)), "--seed", "0", "--threads", "1"]


def pack(name: str, run: Path) -> Path:
    """Put the policy of a run, its card, curve and score into the zoo.

    Raises:
        ValueError: the policy is too large.
    """
    size = (run / POLICY).stat().st_size
    if size > LARGEST:
        raise ValueError(f"{run / POLICY}: expected at most {LARGEST:,} bytes, got {size:,}; train a smaller width")
    folder = POLICIES / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in (POLICY, "curve.png"):
        shutil.copyfile(run / file, folder / file)
    found = evaluate_run(folder, episodes=EPISODES, seed=SEED)
    command = f"rlmin {' '.join(arguments_of(name))}"
    score = {
        "preset": name,
        "command": command,
        "episodes": EPISODES,
        "seed": SEED,
        "mean_return": round(found.mean_return, 4),
        "success_rate": found.success_rate,
    }
    write_atomic(folder / SCORE, f"{json.dumps(score, indent=2)}\n".encode())
    text = card(load(folder), folder, {"greedy": found}).replace(LOCAL, f'rlmin.load("{PREFIX}{name}")')
    write_atomic(folder / CARD, f"{text}\n## Training command\n\n    {command}\n".encode())
    return folder


def make_zoo() -> None:
    """Read the arguments; train and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="presets; none: those without a policy")
    parser.add_argument("--run", type=Path, help="run folder to pack, of the one name")
    given = parser.parse_args()
    names = given.names or sorted(set(preset_names()) - set(zoo_names()))
    if given.run is not None and len(names) != 1:
        parser.error("--run: name the one preset that the run is of")
    for name in names:
        run = given.run or Path("runs") / f"zoo-{name}"
        if given.run is None:
            main([*arguments_of(name), "--folder", str(run)])
        print(pack(name, run), flush=True)


if __name__ == "__main__":
    make_zoo()
