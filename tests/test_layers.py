"""The packages stand on floors, and each imports only from floors below its own; docs/architecture.md has the table.

A direction that is not tested is not one: every import is read, those in functions and under TYPE_CHECKING too.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rlmin"
PAGE = ROOT / "docs" / "architecture.md"
ROW = re.compile(r"^\| (\d+) \| `(\w+)(?:/|\.py)` \| \S.* \|$", re.MULTILINE)
FREE = {"__init__", "_import_hooks", "configs"}
"""Without a floor: the public names, what an import adds to the import system, and data."""
LOOSE, ENTRIES = 12, 30
"""At most so many modules beside the packages, and so many entries in all."""

OPTIONAL = {"minari", "minigrid", "popgym", "torchrl", "stable_baselines3"}
SLOW = {"tensordict", "matplotlib", "scipy", "rich", "PIL", "torch"}
"""Packages that functions import: a user may not have them; or they, or a part of them, take long to load."""

COMMAND = "a command loads only what it runs, so that help and errors come at once"
NUMBA = "needs numba, which may be missing and is slow to load"
TRITON = "needs Triton, which may be missing and is slow to import"
TENSORDICT = "needs tensordict, slow to load; PPO does without logged data"
LOGGER = "needs the logger of stable-baselines3, slow to load"
LATE = {
    "rlmin._import_hooks": {"rlmin.envs": "loads torch, which `rlmin --help` does not need"},
    "rlmin.agents.decision": {"rlmin.runs.logs": LOGGER},
    "rlmin.agents.decision_data": dict.fromkeys(
        ("rlmin.data", "rlmin.data.feed", "rlmin.data.packed_rows", "rlmin.data.windows"), TENSORDICT
    ),
    "rlmin.agents.ppo": {"rlmin.runs.logs": LOGGER},
    "rlmin.cli": dict.fromkeys(
        (
            *("rlmin.bench", "rlmin.bench.options", "rlmin.bench.run", "rlmin.data.minari"),
            *("rlmin.encoders.capabilities", "rlmin.envs.catalog"),
            *("rlmin.distributed", "rlmin.runs.policy_zoo", "rlmin.vector.make"),
            *("rlmin.interop.hub_command", "rlmin.suite", "rlmin.suite.defaults", "rlmin.suite.offline"),
            *("rlmin.suite.seeds", "rlmin.suite.tuning.options", "rlmin.suite.tuning.study"),
            *(f"rlmin.commands.{name}" for name in ("completion", "early_answers", "help_text", "parse")),
            *(f"rlmin.commands.{name}" for name in ("train", "typed_run")),
        ),
        COMMAND,
    ),
    "rlmin.commands.errors": dict.fromkeys(("rlmin.distributed.join", "rlmin.vector.faults"), COMMAND),
    "rlmin.commands.evaluate": dict.fromkeys(("rlmin.data", "rlmin.data.reference"), TENSORDICT),
    "rlmin.commands.inspect": dict.fromkeys(("rlmin.data", "rlmin.data.env_fit", "rlmin.data.summary"), TENSORDICT),
    "rlmin.commands.train": {"rlmin.runs.plots": LOGGER},
    "rlmin.commands.training_run": {"rlmin.runs.logs": LOGGER},
    "rlmin.encoders.gru": {"rlmin.kernels.gru": NUMBA, "rlmin.kernels.rnn_gpu": TRITON},
    "rlmin.encoders.lstm": {"rlmin.kernels.lstm": NUMBA, "rlmin.kernels.rnn_gpu": TRITON},
    "rlmin.encoders.projected": {"rlmin.kernels.cell": NUMBA},
    "rlmin.encoders.stack_step": dict.fromkeys(
        (f"rlmin.kernels.step.{name}" for name in ("loop", "product", "table")), NUMBA
    ),
    "rlmin.kernels.block": {"rlmin.kernels.block_loops": NUMBA},
    "rlmin.scan.outer": {"rlmin.scan.outer_cpu": NUMBA},
    "rlmin.encoders.mamba": {"rlmin.kernels.selective": NUMBA},
    "rlmin.encoders.srwm": {"rlmin.kernels.self_reference": NUMBA},
    "rlmin.encoders.cell": {"rlmin.encoders.mixed": "a table of cells that makes mixed ones, which are cells"},
    "rlmin.agents.sb3_form": {"rlmin.vector.sb3": "needs stable-baselines3, slow to load"},
    "rlmin.policy.policy": dict.fromkeys(
        ("rlmin.policy.actor", "rlmin.policy.predict"), "methods of a Policy that call what takes a Policy"
    ),
    "rlmin.vector.adapter": {"rlmin.vector.sb3": "needs stable-baselines3, slow to load"},
}
"""Importer -> what it imports inside a function, and why."""


class Import(NamedTuple):
    """One imported name: the module that it comes from or is, and where the import stands."""

    module: str
    name: str
    late: bool = False  # in a function
    typed: bool = False  # under TYPE_CHECKING


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path): path for path in SOURCES}


def imports_of(tree: ast.AST, *, late: bool = False, typed: bool = False) -> Iterator[Import]:
    """Every import in a file, wherever it stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield Import(full if full in MODULES else source, alias.name, late, typed)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, "", late, typed) for alias in node.names)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            yield from imports_of(node, late=late or function, typed=typed or checking)


def own(found: Iterator[Import]) -> list[Import]:
    """Those of rlmin's own modules; its version, the first name of the package, may be read by all."""
    return [one for one in found if one.module.split(".")[0] == "rlmin" and one.name != "__version__"]


IMPORTS = {name: list(imports_of(ast.parse(path.read_text()))) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """The package or loose module at the top of rlmin that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def floors(page: str) -> dict[str, int]:
    """Package or module -> floor, as the table says."""
    found = [(name, int(floor)) for floor, name in ROW.findall(page)]
    assert len(dict(found)) == len(found), "a package has two floors"
    return dict(found)


FLOORS = floors(PAGE.read_text())


def upward(module: str, found: Iterator[Import]) -> list[str]:
    """What a module imports that is neither in its own package nor on a floor below."""
    here = part_of(module)
    others = {(one.module, part_of(one.module)) for one in own(found)}
    return sorted(name for name, part in others if part != here and FLOORS.get(part, 99) >= FLOORS[here])


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """A circle through each module that is on one."""
    found = []
    for first in graph:
        trails, seen = [[first]], {first}
        while trails:
            trail = trails.pop()
            for following in graph.get(trail[-1], ()):
                if following == first:
                    found.append([*trail, first])
                    trails = []
                    break
                if following not in seen:
                    seen.add(following)
                    trails.append([*trail, following])
    return found


def test_the_table_has_every_package_and_module_and_nothing_else() -> None:
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    there = {name for name in there if name in FREE or name == "__main__" or not name.startswith("_")}
    assert there - FREE == set(FLOORS)


def test_the_top_is_small_and_every_package_says_what_belongs_there() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len([path for path in entries if path.suffix == ".py"]) <= LOOSE
    assert len(entries) <= ENTRIES
    for folder in {path.parent for path in SOURCES} - {PACKAGE / "configs"}:
        sentence = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert sentence, f"{folder} says not what belongs there"


def test_imports_point_down() -> None:
    for module in (name for name in MODULES if part_of(name) not in FREE):
        relative = [one.module for one in IMPORTS[module] if one.module.startswith(".")]
        assert not relative, f"{module}: relative imports break under the top-level views"
        higher = upward(module, iter(IMPORTS[module]))
        assert not higher, f"{module} imports {', '.join(higher)}, which does not lie below it"


def test_an_import_that_points_up_is_found() -> None:
    def said(module: str, *lines: str) -> list[str]:
        return upward(module, imports_of(ast.parse("\n".join(lines))))

    assert said("rlmin.envs.t_maze", "from rlmin.types import Step", "from rlmin.agents import PPO") == ["rlmin.agents"]
    assert said("rlmin.envs.t_maze", "def f():", "    import rlmin.scan") == ["rlmin.scan"], "a neighbour on its floor"
    assert said("rlmin.policy.heads", "if TYPE_CHECKING:", "    import rlmin.agents.ppo") == ["rlmin.agents.ppo"]
    assert said("rlmin.policy.heads", "from rlmin import load") == ["rlmin"]
    assert said("rlmin.cli", "from rlmin import __version__", "from rlmin.commands import train", "import torch") == []


def test_a_floor_that_the_page_does_not_have_is_missed() -> None:
    text = PAGE.read_text()
    assert "scan" not in floors(text.replace("| 1 | `scan/`", "| one | `scan/`"))
    with pytest.raises(AssertionError, match="two floors"):
        floors(text + "\n| 4 | `scan/` | again |\n")


def test_files_import_each_other_in_no_circle() -> None:
    graph = {
        module: {one.module for one in own(iter(found)) if not one.late and not one.typed} - {module}
        for module, found in IMPORTS.items()
    }
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["a"]}) == [
        ["a", "b", "d", "a"],
        ["b", "d", "a", "b"],
        ["d", "a", "b", "d"],
    ]
    assert circles({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_imports_in_functions_are_listed_with_their_reason() -> None:
    late = {module: {one.module for one in own(iter(found)) if one.late} for module, found in IMPORTS.items()}
    assert {module: names for module, names in late.items() if names} == {
        module: set(reasons) for module, reasons in LATE.items()
    }
    for module, found in IMPORTS.items():
        roots = {one.module.split(".")[0] for one in found if one.late} - {"rlmin"}
        assert roots <= OPTIONAL | SLOW, f"{module}: import {sorted(roots - OPTIONAL - SLOW)} at the top of the file"
    assert not (OPTIONAL | SLOW) & set(sys.stdlib_module_names)


def test_nothing_imports_through_the_views() -> None:
    tests = {path: imports_of(ast.parse(path.read_text())) for path in (ROOT / "tests").rglob("*.py")}
    for file, found in [*IMPORTS.items(), *tests.items()]:
        roots = {one.module.split(".")[0] for one in found}
        assert not roots & {"agents", "envs", "configs"}, file


def test_the_views_lead_into_the_package() -> None:
    for name in ("agents", "envs", "configs"):
        view = ROOT / name
        if view.is_file():  # git on Windows writes a link as a file that names its end
            view = ROOT / view.read_text()
        assert view.resolve() == (PACKAGE / name).resolve(), f"{name} does not lead to rlmin/{name}"
        assert (view / "__init__.py").is_file()


def test_files_are_short_and_named_after_what_they_hold() -> None:
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= 400, f"{path} is longer than 400 lines"
        assert path.stem not in {"utils", "util", "common", "helpers", "misc", "base_class"}, path
        assert ast.get_docstring(ast.parse(path.read_text())) or not path.read_text(), f"{path} says not what it is"
