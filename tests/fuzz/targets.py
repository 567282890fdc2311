"""The targets by name."""

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from . import commands, d4rl, minari_folders, policies, presets, runs
from .case import SECONDS, Verdict, tried

Case = dict[str, Any]


def nothing(base: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        cases: strategy of plain JSON.
        run: (case, base, work) -> None; raises where the case is refused; `work` is an empty folder.
        prepare: (base) -> None, makes what every case of the target starts from.
        weight: cases of it beside those of other targets, where there are so many in all.
        usual: a case with nothing odd, tried here first, so that no child has to load what it needs anew.
    """

    cases: st.SearchStrategy[Case]
    run: Callable[[Case, Path, Path], None]
    weight: int
    prepare: Callable[[Path], None] = nothing
    usual: Case | None = None

    def ready(self, base: Path) -> None:
        """Make what every case starts from."""
        verdict = tried(partial(self.prepare, base), seconds=600)
        assert verdict.kind == "accepted", verdict
        here = dict(os.environ)
        with tempfile.TemporaryDirectory(prefix="rlmin-fuzz-") as work, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.usual is not None:
                self.run(self.usual, base, Path(work))
        os.environ.clear()
        os.environ.update(here)

    def try_case(self, case: Case, base: Path, *, seconds: float = SECONDS) -> Verdict:
        """The verdict on one case, of exactly what its JSON says."""
        case = json.loads(json.dumps(case))
        with tempfile.TemporaryDirectory(prefix="rlmin-fuzz-") as work:
            return tried(partial(self._run, case, base, Path(work)), seconds=seconds)

    def _run(self, case: Case, base: Path, work: Path) -> None:
        os.chdir(work)
        os.environ["RLMIN_CACHE"] = str(work / "own-cache")
        self.run(case, base, work)


TARGETS = {
    "policies": Target(policies.CASES, policies.run, 2, usual=policies.USUAL),
    "runs": Target(runs.CASES, runs.run, 3, runs.prepare, usual=runs.USUAL),
    "d4rl": Target(d4rl.CASES, d4rl.run, 3, usual=d4rl.USUAL_CASE),
    "minari": Target(minari_folders.CASES, minari_folders.run, 3, minari_folders.prepare, usual=minari_folders.USUAL),
    "presets": Target(presets.CASES, presets.run, 2, usual={"kind": "preset", "edits": [], "bytes": [], "bomb": ""}),
    "commands": Target(commands.CASES, commands.run, 2, commands.prepare),
}
