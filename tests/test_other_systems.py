"""Windows and macOS, as far as they can be tested elsewhere: public CI's matrix, paths, encodings, names of Unix."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import yaml

from rlmin.runs.hub_snapshot import fetch, is_address
from rlmin.runs.policy_zoo import zoo_folder

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
UNIX = {
    *("os.fork", "os.killpg", "os.setpgrp", "os.setsid", "os.getuid", "os.uname", "os.mkfifo", "os.sched_getaffinity"),
    *("os.sysconf", "os.register_at_fork", "signal.SIGKILL", "signal.SIGHUP", "signal.SIGUSR1", "signal.SIGALRM"),
    *("signal.pthread_sigmask", "signal.setitimer"),
}
"""Names that are missing on Windows."""
GUARDED = {
    "rlmin/bench/machine.py": {"os.sched_getaffinity", "os.sysconf"},
    "rlmin/commands/training_run.py": {"signal.SIGHUP"},
    "rlmin/data/tables.py": {"os.sysconf"},
    "rlmin/files/lock.py": {"os.register_at_fork"},
    "rlmin/scan/cpu_threads.py": {"os.register_at_fork"},
    "rlmin/suite/executors/local.py": {"os.setpgrp"},
    "rlmin/vector/deadline.py": {"signal.setitimer", "signal.SIGALRM"},
}
"""Where they are used all the same, below a `hasattr` or an `except`."""


def read_workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return found


def test_the_matrix_has_every_system_and_every_python_that_is_promised() -> None:
    matrix = read_workflow()["jobs"]["quick"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    promised = [
        one.removeprefix("Programming Language :: Python :: ") for one in project["classifiers"] if prefix in one
    ]
    assert matrix["python"] == promised and len(promised) == 3
    assert project["requires-python"] == f">={promised[0]}"


def test_public_ci_runs_the_commands_of_the_readme_and_of_the_own_ci() -> None:
    jobs = read_workflow()["jobs"]
    steps = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    readme, own = ((ROOT / file).read_text(encoding="utf-8") for file in ("README.md", ".ci/run"))
    for command in steps["quick"].splitlines():
        assert command in readme
    for line in ("ruff check .", "ruff format --check .", "mypy", "mkdocs build --strict"):
        assert line in own and line in steps["house"]
    for line in ('pytest -n auto -m "needs and not slow"', "pytest -n auto --dist worksteal -m slow"):
        assert line in own and line in steps["nightly"]


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def reads_text_as_the_system_likes(call: ast.Call) -> bool:
    """Whether a file is opened as text without an encoding: on Windows that is not UTF-8."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    if "encoding" in named:
        return False
    if name == "read_text":
        return not call.args
    if name == "write_text":
        return (
            isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not isinstance(call.func.value, ast.Name)
        )
    if name != "open" or not (isinstance(call.func, ast.Name) or is_path(call.func)):
        return False
    modes = [x.value for x in call.args if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    return not any("b" in mode for mode in modes)


def is_path(function: ast.expr) -> bool:
    """Whether `x.open` is that of a path, by how such names are here."""
    holder = function.value if isinstance(function, ast.Attribute) else None
    name = holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "")
    return name in ("path", "file") or isinstance(holder, ast.BinOp)


def modules() -> list[Path]:
    return sorted((ROOT / "rlmin").rglob("*.py"))


def test_text_is_read_and_written_as_utf8_whatever_the_system_likes() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in modules()
        for call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if reads_text_as_the_system_likes(call)
    ]
    assert wrong == []
    bad = ast.parse("Path('x').read_text()\nopen('x')\n(folder / 'x').open('w')\npath.open('r+')")
    assert [reads_text_as_the_system_likes(call) for call in calls(bad)].count(True) == 4
    good = ast.parse("Path('x').read_text(encoding='utf-8')\nopen('x', 'rb')\nos.open('x', flags)\npath.open('wb')")
    assert not any(map(reads_text_as_the_system_likes, calls(good)))


def unix_names(tree: ast.AST) -> set[str]:
    names = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return UNIX & set(names)


def test_nothing_that_windows_lacks_is_used_unguarded() -> None:
    found = {path: unix_names(ast.parse(path.read_text(encoding="utf-8"))) for path in modules()}
    assert {path.relative_to(ROOT).as_posix(): names for path, names in found.items() if names} == GUARDED
    for name in GUARDED:
        source = (ROOT / name).read_text(encoding="utf-8")
        assert any(guard in source for guard in ("hasattr(os,", "hasattr(signal,", "except (AttributeError"))
    assert unix_names(ast.parse("os.killpg(1, signal.SIGKILL)")) == {"os.killpg", "signal.SIGKILL"}


def test_an_address_survives_a_path_of_windows() -> None:
    assert str(PureWindowsPath("hf://user/name")) == "hf:\\user\\name"  # what a Path of an option becomes there
    for place in ("hf://user/name", PureWindowsPath("hf://user/name"), PureWindowsPath("zoo:cartpole")):
        assert is_address(place)  # type: ignore[arg-type]
    assert fetch(PureWindowsPath("zoo:cartpole")) == zoo_folder("zoo:cartpole")  # type: ignore[arg-type]
    assert not is_address(PureWindowsPath("C:/runs/zoo")) and not is_address("runs/hf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no policy of the zoo 'none'"):
        fetch("zoo:none")


HELPERS = {"audit", "fuzz", "kill.py", "kill_workers.py", "soak.py", "forking.py", "dying.py", "rank_runs.py"}
"""Programs of their own, and what tests with a guard import."""
LACKING = {"resource", "fcntl", "pty", "termios", "grp", "pwd"}
"""Modules that are missing on Windows."""
SENDS = {"send_signal", "symlink_to", "symlink"}
"""Methods that do something else there than on Unix."""
GUARDS = ("SIGNALS", "LINKS", "linux", "skipif")


def find_unguarded(tree: ast.Module) -> set[str]:
    """What a file of tests uses that Windows lacks: while it is imported, or in a test without a mark."""
    found = set[str]()
    for one in tree.body:
        if isinstance(one, ast.Assign) and ("pytestmark" in (text := ast.unparse(one)) or "importorskip" in text):
            return set()  # the whole file has a guard
        if isinstance(one, ast.Import):
            found |= {alias.name for alias in one.names} & LACKING
        elif isinstance(one, ast.FunctionDef):
            marks = " ".join(map(ast.unparse, one.decorator_list))
            own = {name for name in UNIX if name in marks and "hasattr" not in marks}
            if one.name.startswith("test_") and not any(guard in marks for guard in GUARDS):
                sent = {node.attr for node in ast.walk(one) if isinstance(node, ast.Attribute)} & SENDS
                own |= unix_names(one) | sent
            found |= {f"{one.name}: {name}" for name in own}
        elif not isinstance(one, ast.ClassDef) and "hasattr" not in ast.unparse(one):
            found |= unix_names(one)
    return found


def test_the_tests_themselves_can_be_collected_on_windows_and_skip_what_it_lacks() -> None:
    tests = ROOT / "tests"
    files = [path for path in tests.rglob("*.py") if path.relative_to(tests).parts[0] not in HELPERS]
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    assert {name: found for name, tree in trees.items() if (found := find_unguarded(tree))} == {}
    bad = "import resource\nX = os.killpg\n@mark([os.fork])\ndef test_x(): process.send_signal(2)"
    assert find_unguarded(ast.parse(bad)) == {"resource", "os.killpg", "test_x: os.fork", "test_x: send_signal"}
