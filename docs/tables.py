"""Tables of the pages, made when the site is built, so that no number is typed twice.

    <!-- table: tmaze.csv | encoder, seed, greedy return -> return | encoder=min_gru -->
    <!-- pivot: defaults.csv | task | column | final, worst -->
    <!-- awaited: gpu.csv | what, value -->
    <!-- measured: train.csv -->
    <!-- targets: train.csv -->
    <!-- settings: rlmin.agents.ppo_config.PPOConfig -->
    <!-- names: stable-baselines3 -->
    <!-- encoders: all -->
    <!-- games: all -->
    <!-- changelog: all -->

A table shows columns of a file in benchmarks/results, of the rows that have the values given; `name -> shown` renames
a column, and a comma in its name is written as a semicolon. `pivot` has a line for each value of the first column and
a column for each value of the second, with the entries named last. `awaited` is a table whose file may not be there
yet; it then says "Not measured yet". `measured` says by which command, when and where such a file was made, `targets`
which numbers were to be reached. `settings` lists the fields of a dataclass with their types, ranges, defaults and what
its source says about them; `names` what another library's are called here; `games` the rules and ids of every native
environment; `changelog` is CHANGELOG.md.
"""

import ast
import csv
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlmin.encoders import capabilities
from rlmin.envs import GAMES
from rlmin.envs.catalog import brief
from rlmin.settings import describe_settings, words
from rlmin.settings.fields import About
from rlmin.settings.sb3_names import SB3_NAMES

RESULTS = Path(__file__).parent / "data"
MARK = re.compile(
    r"<!-- (table|pivot|awaited|measured|targets|settings|names|encoders|games|changelog): (.*?) -->"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for every page: put the tables where their marks stand."""
    return MARK.sub(
        lambda found: MAKE[found[1]](
            *(part.strip() for part in found[2].split("|"))
        ),
        markdown,
    )


def table(file: str, columns: str, where: str = "") -> str:
    """Columns of a CSV file as Markdown; a ValueError where it has no such column, or no row is left."""
    wanted = dict(
        pair.split("=", 1)
        for pair in filter(None, map(str.strip, where.split(",")))
    )
    chosen = dict(
        name_and_title(text.replace(";", ",")) for text in columns.split(",")
    )
    rows = read(file, *chosen, *wanted)
    rows = [
        row
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
    ]
    if not rows:
        raise ValueError(f"{file}: no row with {where}")
    lines = [
        list(chosen.values()),
        ["---"] * len(chosen),
        *([shown(row[name]) for name in chosen] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pivot(file: str, line: str, column: str, entries: str) -> str:
    """A line for each value of the column `line`, a column for each of `column`: the entries, joined by a slash."""
    shown_entries = [x.strip() for x in entries.split(",")]
    rows = read(file, line, column, *shown_entries)
    found = {
        (row[line], row[column]): " / ".join(
            shown(row[name]) for name in shown_entries
        )
        for row in rows
    }
    columns = list(dict.fromkeys(row[column] for row in rows))
    lines = [[line, *columns], ["---"] * (len(columns) + 1)]
    for value in dict.fromkeys(row[line] for row in rows):
        lines.append([value, *(found.get((value, one), "") for one in columns)])
    return "\n".join(f"| {' | '.join(one)} |" for one in lines)


def awaited(file: str, columns: str, where: str = "") -> str:
    """A table of a file that may not be there yet."""
    if (RESULTS / file).is_file():
        return table(file, columns, where)
    return "**Not measured yet.**"


def measured(file: str) -> str:
    """The lines above a CSV file that say how it was made."""
    said = dict(
        line[2:].split(": ", 1)
        for line in (RESULTS / file).read_text().splitlines()
        if line.startswith("# ")
    )
    return f"Measured by `{said['command']}` on {said['date'].split()[0]}: {said['CPU']}, torch {said['torch']}."


def targets(file: str) -> str:
    """What was to be reached, and whether it was: the lines above a CSV file that say so."""
    lines = (RESULTS / file).read_text().splitlines()
    return "\n".join(
        f"- {line.removeprefix('# target: ')}"
        for line in lines
        if line.startswith("# target: ")
    )


WORDS = {"": "required", "()": "none"}
"""Defaults as in the source that a table says in words."""


def settings(name: str, without: str = "") -> str:
    """The fields of a dataclass, its own before those of its bases: default, and the comment beside it in the source.

    Those of `without`, one of its bases, are left out where their defaults are the same.
    """
    kind = kind_of(name)
    every = describe_settings(kind)
    own = [
        key
        for one in kind.__mro__
        for key in vars(one).get("__annotations__", {})
    ]
    rows = {key: every[key] for key in dict.fromkeys(own) if key in every}
    for key, about in (
        describe_settings(kind_of(without)).items() if without else ()
    ):
        if rows[key].default == about.default:
            del rows[key]
    lines = [
        "| setting | type and range | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for key, about in rows.items():
        default = WORDS.get(about.written) or f"`{written(about)}`"
        lines.append(
            f"| `{key}` | {words(about.hint)} | {default} | {about.help} |"
        )
    return "\n".join(lines)


def written(about: About) -> str:
    """A default as in the source; where that is a name or a call, its value."""
    try:
        ast.literal_eval(about.written)
    except ValueError:
        return repr(about.default)
    return about.written


def names(library: str) -> str:
    """What the names of another library are called here."""
    assert library == "stable-baselines3", (
        f"{library}: no names of this library are known"
    )
    lines = ["| there | here | what to know |", "| --- | --- | --- |"]
    for name, here in SB3_NAMES.items():
        setting = "" if here.setting is None else f"`{here.setting}`"
        lines.append(f"| `{name}` | {setting} | {here.note} |")
    return "\n".join(lines)


def kind_of(name: str) -> type:
    """The class of a dotted name."""
    module, _, of = name.rpartition(".")
    kind: type = getattr(importlib.import_module(module), of)
    return kind


def encoders(_: str) -> str:
    """Every registered encoder: what it is and its options, then what it can do."""
    lines = capabilities.table().splitlines()
    rows = [line[2:-2].split(" | ") for line in lines]
    first, second = (
        [row[:3] for row in rows],
        [row[:1] + row[3:] for row in rows],
    )
    first[0] = ["encoder", "memory", "options"]
    return "\n\n".join(
        "\n".join(f"| {' | '.join(row)} |" for row in part)
        for part in (first, second)
    )


def games(_: str) -> str:
    """Every native game: its ids with what they score, and its rules, folded."""
    parts = []
    for file in GAMES:
        module = importlib.import_module(f"rlmin.envs.{file}")
        title, _, rules = inspect.getdoc(module).partition("\n")
        name, _, about = title.partition(": ")
        folded = "\n".join(
            f"    {line}".rstrip() for line in rules.strip().splitlines()
        )
        parts += [
            f"### {name}",
            about[0].upper() + about[1:],
            f"![{name}, drawn after a few steps](../images/games/{file}.png)"
            "{ loading=lazy }",
            variants(module.VARIANTS),
        ]
        parts += [f'??? note "Rules"\n\n    ```text\n{folded}\n    ```']
    return "\n\n".join(parts)


def changelog(_: str) -> str:
    """The changes, from the file at the top of the repository."""
    text = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    return text.partition("\n")[2].strip()


def variants(known: dict[str, Any]) -> str:
    """The ids of a game: spaces, length, and what random play, play without memory and very good play return."""
    lines = [
        "| id | observation | action | steps | random | floor | ceiling |",
        "| --- " * 7 + "|",
    ]
    for id, variant in known.items():
        env = gym.make(f"rlmin/{id}", disable_env_checker=True)
        spaces = f"{brief(env.observation_space)} | {brief(env.action_space)}"
        scores = " | ".join(
            "" if x is None else f"{x:.2f}"
            for x in (variant.random, variant.floor, variant.ceiling)
        )
        lines.append(
            f"| `rlmin/{id}` | {spaces} | {variant.length} | {scores} |"
        )
    return "\n".join(lines)


def read(file: str, *columns: str) -> list[dict[str, str]]:
    """The rows of a file of results, without the lines that say how it was made; it has to have these columns."""
    with (RESULTS / file).open(newline="") as lines:
        rows = list(
            csv.DictReader(line for line in lines if not line.startswith("#"))
        )
    for name in columns:
        if name not in rows[0]:
            raise ValueError(
                f"{file}: no column {name!r}; it has {', '.join(rows[0])}"
            )
    return rows


def name_and_title(text: str) -> tuple[str, str]:
    name, _, title = (part.strip() for part in text.partition("->"))
    return name, title or name


def shown(cell: str) -> str:
    """A number to three digits after the point, a long one with separators; anything else as it is."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    if number == int(number):
        return f"{int(number):,}"
    return (
        f"{number:,.0f}"
        if abs(number) >= 1000
        else f"{number:.3g}"
        if abs(number) > 10
        else f"{number:.3f}"
    )


MAKE: dict[str, Callable[..., str]] = {
    "table": table,
    "pivot": pivot,
    "awaited": awaited,
    "measured": measured,
    "targets": targets,
    "settings": settings,
    "names": names,
    "encoders": encoders,
    "games": games,
    "changelog": changelog,
}
