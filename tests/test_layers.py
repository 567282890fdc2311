"""The files form a stack: each may import only from layers below its own. A direction that is not tested is not one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rlmin"

LAYERS = [  # from the bottom up; a file may import from every layer above in this list, and from its own package
    {"types", "checks", "statistics", "atomic", "lock", "trust", "plain", "faults", "waiting"},
    {"settings", "read_yaml", "sb3_names", "workers", "readings"},
    {"parse", "boundary"},
    {"scan", "spaces", "space_json", "envs"},
    {"header"},
    {"encoders", "returns", "losses", "episodes", "normalize", "make", "checkpoint", "wrappers"},
    {"vector", "heads", "arena", "hub_snapshot"},
    {"vector_gym", "vector_sb3", "inputs", "data"},
    {"policy_config", "trunk", "tokens"},
    {"policy_step"},
    {"policy", "parse_agent"},
    {"rollout_graph", "play", "scores", "fit"},
    {"predict", "evaluate", "rollout", "callbacks", "progress", "logs"},
    {"verify", "curves", "run_groups", "targets"},
    {"actor"},
    {"agents", "collect", "plots", "inspection"},
    {"video"},
    {"evaluate_run", "plot_run"},
    {"collect_run", "inspect_run", "interop"},
    {"export_run"},
    {"train_config"},
    {"presets", "watchdog"},
    {"training_run"},
    {"train"},
    {"bench"},
    {"suite"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}

EXCEPTIONS = {
    ("vector", "vector_gym"),  # `adapt` picks one of them, inside the function
    ("vector", "vector_sb3"),
    ("policy", "actor"),  # `Policy.actor` makes one
}
ONLY = {"envs": {"types", "checks"}, "scan": {"types", "checks"}}  # stricter than the layers: these stand alone
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The dotted name of every import anywhere in the file, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}: relative imports break under the top-level views"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def part_of(path: Path) -> str:
    """The module or sub-package of rlmin that the file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def upward(path: Path, names: Iterator[str]) -> list[str]:
    """Imports of rlmin's parts that do not lie below the file's own."""
    own = part_of(path)
    found = {name.split(".")[1] for name in names if name.startswith("rlmin.")} - {own, "__version__"}
    allowed = ONLY.get(own) or {name for name, height in HEIGHT.items() if height < HEIGHT[own]}
    return sorted(other for other in found - allowed if (own, other) not in EXCEPTIONS)


def test_every_file_has_a_layer_and_every_layer_a_file() -> None:
    assert {part_of(path) for path in SOURCES} - {"__init__", "configs"} == set(HEIGHT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if part_of(path) in ("__init__", "configs"):
        return  # the public names; and data
    for other in upward(path, imported(path)):
        pytest.fail(f"{path.relative_to(PACKAGE)} imports rlmin.{other}, which does not lie below it")


def test_an_import_that_points_up_is_found() -> None:
    assert upward(PACKAGE / "envs" / "t_maze.py", iter(["rlmin.types.Step", "rlmin.agents.PPO"])) == ["agents"]
    assert upward(PACKAGE / "policy.py", iter(["rlmin.agents.ppo.PPO", "rlmin.policy.heads.ValueHead"])) == ["agents"]
    assert upward(PACKAGE / "cli.py", iter(["rlmin.commands.train.train", "torch.nn"])) == []


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: path.name)
def test_nothing_imports_through_the_views(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & {"agents", "envs", "configs"}


def test_the_views_lead_into_the_package() -> None:
    for name in ("agents", "envs", "configs"):
        view = ROOT / name
        assert view.resolve() == (PACKAGE / name).resolve(), f"{name} does not lead to rlmin/{name}"
        assert (view / "__init__.py").is_file()


def test_files_are_short_and_named_after_what_they_hold() -> None:
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= 400, f"{path} is longer than 400 lines"
        assert path.stem not in {"utils", "util", "common", "helpers", "misc", "base_class"}, path
        assert ast.get_docstring(ast.parse(path.read_text())) or not path.read_text(), f"{path} says not what it is"
