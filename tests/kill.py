"""Kill training, collecting and suite cells at random moments, go on, and compare with what was never killed.

    python -m tests.kill --kills 100 [--only ppo] [--seed 0] [--seconds 1200]

Each run is a forked child of this process, which has imported and compiled everything; SIGKILL ends it at any moment.
A run is done when it ends by itself. It has to be bit for bit what it would have been, with its curve, the same rows
in metrics.csv, and nothing left over. Prints counts; the exit code is 1 where something differs.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

TRAIN = "--width 8 --threads 1 --eval-episodes 0 --evaluations 3"
PPO = f"tmaze --env-kwargs length=4 --num-envs 8 --horizon 8 --minibatches 2 --epochs 2 --total-timesteps 3200 {TRAIN}"
PPO += " --save-interval 64"
DECISION = f"--dataset data.hdf5 --env CartPole-v1 --rows 4 --horizon 32 --total-timesteps 32000 {TRAIN}"
DECISION += " --save-interval 256"

Act = Callable[[Path], Any]
"""What a child does in its folder, again after each kill."""


def train(command: str) -> Act:
    """Begin a run, or go on with it."""

    def act(place: Path) -> None:
        from rlmin.cli import main
        from rlmin.runs.checkpoint import LEARNER

        begun = (place / "run" / LEARNER).exists()
        try:
            main(["train", *(["--resume"] if begun else [*command.split(), "--folder"]), str(place / "run")])
        except SystemExit as ended:
            if ended.code != 2 or not (place / "run" / "curve.png").exists():  # else it had finished
                raise

    return act


def collect(place: Path) -> None:
    """Write a dataset of a run's episodes."""
    from rlmin.cli import main

    os.environ["MINARI_DATASETS_PATH"] = str(place.resolve())
    if not (place / "maze" / "played-v0").exists():
        main(["collect", "actor/run", "--dataset", "maze/played", "--episodes", "300", "--num-envs", "4"])


def suite(place: Path) -> None:
    """Train a cell of a suite and score it."""
    from rlmin.suite.cells import Cell
    from rlmin.suite.run import train_cell

    settings = {"env": "rlmin/TMaze-v0", "env_kwargs": ["length=4"], "encoder": "min_gru", "seed": 0, "width": 8}
    settings |= {"num_envs": 8, "horizon": 8, "minibatches": 2, "epochs": 2, "total_timesteps": 1600, "threads": 1}
    train_cell(
        Cell("maze", "min_gru", 0, settings | {"eval_episodes": 0, "evaluations": 3, "save_interval": 128}), place
    )


ACTS: dict[str, Act] = {"ppo": train(PPO), "decision": train(DECISION), "collect": collect, "suite": suite}


def fork(act: Act, place: Path) -> int:
    """A child that does it, its output in the file `log`."""
    place.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 99
    try:
        log = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        act(place)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code; None where it still runs then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def content(place: Path) -> dict[str, Any]:
    """Everything in a folder that has to be equal, by name; times are left out."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        name = path.relative_to(place).as_posix()
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()["header"])
                found |= {f"{name}:{key}": file.get_tensor(key).numpy().tobytes() for key in file.keys()}  # noqa: SIM118
            found[name] = {key: value for key, value in header.items() if key != "seconds"}
        elif path.name == "metrics.csv":
            with path.open(newline="") as lines:
                found[name] = [row["time/total_timesteps"] for row in csv.DictReader(lines)]
        elif path.name == "score.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif path.suffix == ".hdf5":
            found[name] = dataset(path)
        elif not path.name.startswith("events."):
            found[name] = "there"
    return found


def dataset(path: Path) -> dict[str, bytes]:
    """Every column of a dataset."""
    import h5py

    columns: dict[str, bytes] = {}

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            columns[name] = np.asarray(item).tobytes()

    with h5py.File(path) as file:
        file.visititems(look)
    return columns


def killed_run(
    act: Act, place: Path, wanted: dict[str, Any], full: float, rng: random.Random, counts: Counter[str]
) -> None:
    """One run, killed up to five times; what becomes of it is counted."""
    for attempt in range(100):
        child = fork(act, place)
        spans = ((0, 1.05 * full), (0.5 * full, 1.1 * full), (0, 0.3 * full))
        code = wait(child, rng.uniform(*rng.choice(spans)) if attempt < 5 else 120)
        if code is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counts["kills"] += 1
            continue
        if code:
            counts["errors"] += 1
            print(f"{place.name}: exit {code}\n{Path(f'{place}.log').read_text()[-800:]}", flush=True)
            return
        break
    found = content(place)
    differ = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    counts["differ" if differ else "equal"] += 1
    if differ:
        print(f"{place.name}: {len(differ)} differ, {', '.join(differ[:5])}", flush=True)
        return
    shutil.rmtree(place)


def prepare() -> None:
    """Data and a policy to work with; everything imported and compiled, in this folder."""
    import h5py

    import rlmin.cli
    import rlmin.runs.plots
    import rlmin.suite.run  # noqa: F401

    torch.set_num_threads(1)
    draw, n = np.random.default_rng(0), 4000
    with h5py.File("data.hdf5", "w") as file:
        file["observations"], file["actions"] = draw.normal(size=(n, 4)).astype("f4"), draw.integers(0, 2, n)
        file["rewards"], file["terminals"] = np.ones(n, "f4"), draw.random(n) < 0.04
        file["timeouts"] = np.zeros(n, bool)
    Path("actor").mkdir()
    train(PPO)(Path("actor"))
    train(DECISION.replace("32000", "640"))(Path("decision-warm"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills, in all")
    parser.add_argument("--only", choices=ACTS, nargs="+", default=list(ACTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1200, help="time after which no other run is begun")
    given = parser.parse_args(arguments)
    rng, began, counts = random.Random(given.seed), time.monotonic(), dict[str, Counter[str]]()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)
        try:
            prepare()
            wanted: dict[str, tuple[dict[str, Any], float]] = {}
            for name in given.only:
                start, counts[name] = time.monotonic(), Counter(kills=0, equal=0, differ=0, errors=0)
                assert wait(fork(ACTS[name], Path(f"{name}-whole")), 300) == 0, Path(f"{name}-whole.log").read_text()
                wanted[name] = content(Path(f"{name}-whole")), time.monotonic() - start
            number = 0
            while sum(x["kills"] for x in counts.values()) < given.kills and time.monotonic() - began < given.seconds:
                name = given.only[number % len(given.only)]
                killed_run(ACTS[name], Path(f"{name}-{number}"), *wanted[name], rng, counts[name])
                number += 1
        finally:
            os.chdir(before)
    for name, found in counts.items():
        print(f"{name:10} " + "  ".join(f"{key} {found[key]}" for key in ("kills", "equal", "differ", "errors")))
    print(f"{sum(x['kills'] for x in counts.values())} kills in {time.monotonic() - began:.0f} s")
    return int(any(x["differ"] or x["errors"] for x in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
