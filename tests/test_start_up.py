"""What `import rlmin` and quick answers of the command line load: no torch, and yet every name and id is there."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rlmin
from rlmin.agents import AGENTS
from rlmin.commands.early_answers import check_options, list_cell_flags, list_flags
from rlmin.commands.help_text import write_help
from rlmin.commands.sketch import NeedsImport, find_agents, find_cells, sketch
from rlmin.commands.table import TABLE
from rlmin.encoders import CELLS
from rlmin.encoders.cell import option_names

TELL = "import json, sys; print(json.dumps([name for name in ('torch', 'gymnasium', 'numpy') if name in sys.modules]))"
CALL = """
import sys
from rlmin.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code in (None, 0, 2), end.code
"""


def in_a_process(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def loaded_by(code: str, *arguments: str) -> list[str]:
    """The packages of `TELL` that code has loaded."""
    found: list[str] = json.loads(in_a_process(f"{code}\n{TELL}", *arguments).splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "--version",
        "trian tmaze",
        "train",
        "train tmaz",
        "train mine.yaml",
        "list presets",
        "list preset",
        "bench",
        "train cartpole --gama 0.9",
        "train --dataset logged --windws 3",
        "evaluate runs/x --episodse=5",
        "collect runs/x --datset y",
        "export runs/x --onxx x.onnx",
        "inspect runs/x --vray length=3",
        "plot runs/x --flie x.png",
        "completion bash",
        "train --help",
        "train tmaze --help",
        "train tmaze --encoder mamba --help",
        "train --dataset logged -h",
        "train --resume runs/x --help",
        "tune tmaze --help",
        "evaluate --help",
        "bench act --help",
        "hub push --help",
    ],
)
def test_help_and_mistyped_names_are_answered_without_torch(arguments: str) -> None:
    assert loaded_by(CALL, *arguments.split()) == []


def test_options_of_encoders_are_told_from_those_of_a_run() -> None:
    flags = {"--" + name.replace("_", "-") for name in option_names()}
    assert flags == list_cell_flags()
    assert not flags <= {*list_flags("train", "train --dataset")}, "the arm that must fail: without the encoders"


@pytest.mark.parametrize(
    ("option", "answer"), [("--gama", "--gamma"), ("--tracs", None), ("--traces", None), ("-h", None)]
)
def test_only_a_slip_is_answered_early(option: str, answer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    check_options("train", [option])  # torch is loaded: the parser will answer
    monkeypatch.delitem(sys.modules, "torch")
    if answer is None:
        check_options("train", [option])
        return
    with pytest.raises(ValueError, match=f"no option '{option}'; did you mean '{answer}'?"):
        check_options("train", [option])


def test_help_from_the_sources_is_that_of_the_classes() -> None:
    for command in TABLE.values():
        module = importlib.import_module(command.module)
        read, real = sketch(command.module, command.settings), getattr(module, command.settings)
        assert write_help([read], prog="x") == write_help([real], prog="x"), command
        assert command.run is None or callable(getattr(module, command.run))
    assert list(CELLS) == list(find_cells()) and list(AGENTS) == find_agents()
    for name, found in find_cells().items():
        own, real = sketch(found.module, found.options) if found.options else None, CELLS[name].options
        texts = [None if kind is None else write_help([kind], prog="x") for kind in (own, real)]
        assert texts[0] == texts[1], name


@pytest.mark.parametrize("name", ["torch", "make_actor", "nothing"])
def test_what_takes_more_than_the_sources_is_refused(name: str) -> None:
    module = {"make_actor": "rlmin.policy.actor"}.get(name, "rlmin.encoders.gru")
    with pytest.raises(NeedsImport, match=name):
        sketch(module, name)


def test_help_has_groups_and_what_the_preset_sets() -> None:
    said = " ".join(in_a_process(CALL, "train", "tmaze", "--seeds", "3", "--help").split())
    for part in (
        "A training run in an environment",
        "Settings of PPO",
        "What the policy is made of",
        "Options of minGRU",
    ):
        assert f"{part}" in said
    assert "(tmaze: 51; default: 128)" in said and "--candidate {tanh,identity,g,silu}|None" in said
    assert said.count("--candidate ") == 1 and "--seeds INT" in said


def test_a_command_that_needs_torch_is_told_apart() -> None:
    assert "torch" in loaded_by(CALL, "list", "encoders")


def test_the_package_loads_nothing_before_it_is_asked_for() -> None:
    assert loaded_by("import rlmin") == []
    assert "torch" in loaded_by("import rlmin; rlmin.PPO")


@pytest.mark.parametrize(
    "imports",
    [
        "import rlmin, gymnasium",
        "import gymnasium, rlmin",
        "import rlmin.envs.t_maze, gymnasium",
        "import rlmin.vector, gymnasium",
        "import rlmin, stable_baselines3, gymnasium",
    ],
)
def test_environments_are_registered_in_whichever_order_one_imports(imports: str) -> None:
    assert in_a_process(f"{imports}; print('rlmin/TMaze-v0' in gymnasium.registry)").strip() == "True"


def test_gymnasium_alone_knows_none_of_them() -> None:
    assert in_a_process("import gymnasium; print('rlmin/TMaze-v0' in gymnasium.registry)").strip() == "False"


def test_every_public_name_is_there_and_is_what_the_type_checker_sees() -> None:
    tree = ast.parse(Path(rlmin.__file__).read_text())
    (checking,) = (one for one in tree.body if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING")
    typed = {alias.name: one.module for one in checking.body if isinstance(one, ast.ImportFrom) for alias in one.names}
    assert typed == vars(rlmin)["_HOME"]
    assert set(typed) < set(dir(rlmin))
    for name, module in typed.items():
        assert getattr(rlmin, name) is getattr(sys.modules[str(module)], name)
    assert rlmin.scan is sys.modules["rlmin.scan"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rlmin' has no attribute 'PPQ'"):
        getattr(rlmin, "PPQ")  # noqa: B009
    with pytest.raises(ImportError, match="PPQ"):
        exec("from rlmin import PPQ")
