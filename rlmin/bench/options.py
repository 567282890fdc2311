"""The options of every benchmark."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlmin.bench.timing import BLOCK, Case, Timing, time_cases
from rlmin.settings import Count, Settings, Threads

QUICK_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Ways to measure, and where to write."""

    threads: Threads = 2  # Threads of torch on the CPU
    rounds: Count | None = None  # Number of turns of every contender, whose median counts; None: the benchmark's own
    device: str = "cpu"  # Device to measure on: cpu, cuda, ...
    out: Path | None = None  # Folder of the CSV and the PNG; None: benchmarks/results in a checkout, or bench-results
    quick: bool = False  # Whether sizes are tiny and rounds two, to see that it runs: the numbers mean nothing

    @property
    def folder(self) -> Path:
        """Folder of the results. Quick ones mean nothing, so they replace those of a checkout only on request."""
        if self.out is not None:
            return self.out
        checkout = Path("pyproject.toml").is_file() and Path("rlmin/bench").is_dir()
        return Path("benchmarks/results") if checkout and not self.quick else Path("bench-results")

    def command(self, name: str) -> str:
        """The command that measures the same again."""
        words = ["rlmin", "bench", name, "--threads", str(self.threads)]
        words += ["--rounds", str(self.rounds)] if self.rounds is not None else []
        words += ["--device", self.device] if self.device != "cpu" else []
        return " ".join(words + ["--quick"] * self.quick)

    def measure(
        self, title: str, cases: Mapping[str, Case], *, rounds: int, seconds: float = math.inf, block: float = BLOCK
    ) -> Timing:
        """`rlmin.bench.timing.time_cases` on this device, with the rounds asked for; `title` is printed on stderr.

        A given number of rounds overrides the time limit `seconds`.
        """
        print(f"  ... {title}", file=sys.stderr, flush=True)
        if self.quick:
            return time_cases(cases, rounds=QUICK_ROUNDS, device=self.device, block=0)
        limit = math.inf if self.rounds is not None else seconds
        return time_cases(cases, rounds=self.rounds or rounds, device=self.device, seconds=limit, block=block)
