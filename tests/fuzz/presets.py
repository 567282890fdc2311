"""Presets and suites: YAML whose entries or letters are changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from rlmin.commands.parse_agent import parse_agent
from rlmin.commands.presets import PRESETS, config_class, preset_arguments, read_preset
from rlmin.suite.cells import SUITES, drop_other_seeds, read_suite
from rlmin.suite.default_cell import DefaultCell
from rlmin.suite.defaults import read_default_suite
from rlmin.suite.offline import read_offline_suite
from rlmin.suite.sb3_cell import SB3Cell

from .junk import damage, damaged, edited, edits

KINDS = {"preset": "tmaze", "memory": "memory", "ablation": "ablation", "defaults": "defaults", "offline": "offline"}
BOMBS = [
    "&a [*a]",
    "&a [" + "x, " * 9 + "]",
    "? [a]\n: b",
    "!!python/object/apply:os.getcwd []",
    "--- a\n--- b",
    "\t- a",
]
BOMBS += [
    "<<: 3",
    "{a: 1, a: 2}",
    "!!binary x",
    "2001-99-99",
    "!!timestamp x",
    "!!set {a}",
    "[" * 99,
    "1:2:3",
    "0x",
    "=",
    "~",
]

CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(KINDS)),
        "edits": edits,
        "bytes": damage,
        "bomb": st.one_of(st.just(""), st.sampled_from(BOMBS), st.text(max_size=9)),
    }
)


def run(case: dict[str, Any], base: Path, work: Path) -> None:
    """Write the file, and read it as its command does, up to the settings of every run."""
    name, path = KINDS[case["kind"]], work / "a.yaml"
    source = PRESETS / f"{name}.yaml" if case["kind"] == "preset" else SUITES / f"{name}.yaml"
    text = source.read_bytes()
    if case["edits"]:
        text = yaml.safe_dump(edited(yaml.safe_load(text), case["edits"]), allow_unicode=True).encode(errors="replace")
    text = damaged(text, case["bytes"])
    if case["bomb"]:
        line = text.splitlines(keepends=True)
        text = b"".join(
            [*line[: len(line) // 2], case["bomb"].encode(errors="replace"), b"\n", *line[len(line) // 2 :]]
        )
    path.write_bytes(text)
    READ[case["kind"]](str(path))


def _read_preset(path: str) -> None:
    settings = read_preset(path)
    parse_agent(config_class(settings, settings.get("algorithm")), preset_arguments(settings), prog="rlmin train")


def _read_memory(path: str) -> None:
    for cell in drop_other_seeds(read_suite(path).cells()):
        _ = cell.config


def _read_defaults(path: str) -> None:
    for cell in drop_other_seeds(read_default_suite(path).cells()):
        _ = cell.config if isinstance(cell, DefaultCell) and not isinstance(cell, SB3Cell) else None


def _read_offline(path: str) -> None:
    suite = read_offline_suite(path)
    for cell in drop_other_seeds(suite.cells()):
        _ = cell.config
    for recipe in suite.recipes.values():
        _ = recipe.ppo_config


READ: dict[str, Callable[[str], None]] = {
    "preset": _read_preset,
    "memory": _read_memory,
    "ablation": _read_memory,
    "defaults": _read_defaults,
    "offline": _read_offline,
}
