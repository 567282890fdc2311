"""Kill the workers of a suite, and now and then its command, at random moments: its table has to stay the same.

    python -m tests.kill_workers --kills 100 [--seed 0] [--drivers 0.1] [--seconds 3600]

`rlmin bench memory --jobs 2` trains eight tiny cells in processes of its own, which SIGKILL ends one by one; a command
that was killed is given again. As often as all cells are finished, each has to be finished once, with the row and the
table of a suite that nobody disturbed; then they are trained anew. Linux only. Prints counts; the exit code is 1 where
something differs. The tasks are rlmin's own: other environments begin new episodes where a run goes on.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUITE = """
steps: 1024
encoders: [min_gru, mlp]
seeds: 2
settings: {num_envs: 8, width: 8, layers: 1, mlp: 0, horizon: 16, save_interval: 128}
tasks:
  rlmin/TMaze-v0: {env_kwargs: {length: 3}}
  rlmin/RepeatFirstEasy-v0: {steps: 512}
"""


def begin(suite: Path, out: Path) -> "subprocess.Popen[bytes]":
    """The command, whose output goes to a file."""
    command = [sys.executable, "-m", "rlmin", "bench", "memory", "--suite", str(suite), "--jobs", "2"]
    command += ["--out", str(out), "--results", str(out), "--retries", "10000"]
    with Path(f"{out}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def workers(driver: int) -> list[int]:
    """The processes that a command trains in: children of the server that it begins them by."""
    servers = [child for child in children(driver) if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return [worker for server in servers for worker in children(server)]


def children(parent: int) -> list[int]:
    """The processes that a process has begun; none where it has just ended."""
    try:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def content(out: Path) -> dict[str, Any]:
    """The table, and the row of every cell without its seconds."""
    found: dict[str, Any] = {"table": (out / "small.md").read_text(encoding="utf-8")}
    for file in (out / "small").rglob("score.json"):
        row = json.loads(file.read_text())
        found[str(file.relative_to(out))] = {key: x for key, x in row.items() if key != "seconds"}
    return found


def disturb(suite: Path, out: Path, rng: random.Random, counts: Counter[str], *, full: float, options: Any) -> None:
    """Train all cells once; until they are finished, or enough was killed, kill at random moments."""
    driver = begin(suite, out)
    try:
        while True:
            enough = counts["kills"] >= options.kills
            pause = None if enough else rng.uniform(0, 2 * full)
            try:
                driver.wait(600 if pause is None else pause)
            except subprocess.TimeoutExpired:
                assert pause is not None, f"no end: {Path(f'{out}.log').read_text()[-2000:]}"
            code = driver.poll()
            if code is not None:
                assert code == 0, Path(f"{out}.log").read_text()[-2000:]
                return
            found = workers(driver.pid)
            if found and rng.random() >= options.drivers:
                os.kill(rng.choice(found), signal.SIGKILL)
                counts.update(("kills", "workers"))
            elif found:
                driver.kill()
                driver.wait()
                counts.update(("kills", "commands"))
                driver = begin(suite, out)
    finally:
        driver.terminate()
        driver.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drivers", type=float, default=0.1, help="share of kills that end the command itself")
    parser.add_argument("--seconds", type=float, default=3600, help="time after which no other round is begun")
    options = parser.parse_args(arguments)
    rng, counts, began = random.Random(options.seed), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        suite = Path(root) / "small.yaml"
        suite.write_text(SUITE)
        begin(suite, Path(root) / "warm").wait()  # compiles the kernels
        start = time.monotonic()
        assert begin(suite, Path(root) / "whole").wait() == 0, (Path(root) / "whole.log").read_text()
        full = (time.monotonic() - start) / 4  # of a cell, with the start of its process
        wanted = content(Path(root) / "whole")
        while counts["kills"] < options.kills and time.monotonic() - began < options.seconds:
            out = Path(root) / f"round-{counts['rounds']}"
            disturb(suite, out, rng, counts, full=full, options=options)
            found = content(out)
            counts["rounds"] += 1
            counts["cells"] += len(found) - 1
            counts["lost"] += Path(f"{out}.log").read_text().count("[lost]")
            differ = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
            counts["differ"] += len(differ)
            print(f"round {counts['rounds']}: {counts['kills']} kills, {len(differ)} differ", flush=True)
    print(
        "  ".join(
            f"{key} {counts[key]}" for key in ("kills", "workers", "commands", "lost", "rounds", "cells", "differ")
        )
    )
    print(f"{time.monotonic() - began:.0f} s")
    return int(counts["differ"] > 0 or counts["cells"] != 8 * counts["rounds"])


if __name__ == "__main__":
    sys.exit(main())
