"""The house rules that a machine can read: functions are short, and are called by what they do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "rlmin"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 60
"""Lines of a function, its signature among them, its docstring not."""

KERNEL = "a Triton kernel names each pointer and stride as an argument, one a line"
LONG = {
    ("scan/gpu_sequential.py", "forward"): KERNEL,
    ("scan/gpu_sequential.py", "backward"): KERNEL,
    ("scan/gpu_tile.py", "backward"): KERNEL,
    ("kernels/norm_conv_gpu.py", "_backward"): KERNEL,
    ("kernels/ppo_loss_gpu.py", "_ppo_loss"): KERNEL,
}
"""Functions that may be longer, and why."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function in a file, methods and inner functions too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    words = function.body[0] if ast.get_docstring(function) else None
    return lines_of(function) - (lines_of(words) if words else 0)


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def long_functions(tree: ast.AST) -> list[str]:
    return [one.name for one in functions(tree) if length(one) > LONGEST]


TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in SOURCES}


def test_functions_are_short() -> None:
    assert {(file, name) for file, tree in TREES.items() for name in long_functions(tree)} == set(LONG)


def test_a_long_function_is_found() -> None:
    lines = "\n".join(["    x = 1"] * LONGEST)
    assert long_functions(ast.parse(f"class A:\n  def short(self): ...\n\ndef long():\n{lines}")) == ["long"]
    assert long_functions(ast.parse(f"def short():\n{lines[:-10]}")) == []
    assert long_functions(ast.parse(f'def documented():\n    """Words\n{lines[:-10]}\n    """\n{lines[:-10]}')) == []


PARTICIPLE = re.compile(r".+ed|said|told|given|made|shown|seen|kept|known|found|held|drawn|written|lost|left|taken")
NO_PARTICIPLES = {"need", "feed", "seed", "speed", "embed", "embedded"}
TERM = "a term of the field"
DOCUMENTED = "a documented name"
PASSIVE = {
    "weighted_mean": TERM,
    "clipped_surrogate": TERM,
    "discounted_return": TERM,
    "explained_variance": TERM,
    "checked": "a decorator",
    "projected_scan": "a scan of a projection",
    "held_out": "the held-out loss; " + DOCUMENTED,
    "written": "the input of a cell's recurrence",
    "opened": DOCUMENTED,
    "drawn": DOCUMENTED,
}
"""Functions called by a participle, and why."""


def passive(tree: ast.AST) -> set[str]:
    """Functions, not properties, whose first word is a participle: `exported` instead of `export`."""
    named = [one.name for one in functions(tree) if not any("property" in ast.unparse(d) for d in one.decorator_list)]
    first = {name: name.strip("_").partition("_")[0] for name in named}
    return {name for name, word in first.items() if PARTICIPLE.fullmatch(word) and word not in NO_PARTICIPLES}


def test_functions_are_verbs_and_no_participles() -> None:
    found = {name: file for file, tree in TREES.items() for name in passive(tree)}
    assert {name: file for name, file in found.items() if name not in PASSIVE} == {}
    assert set(PASSIVE) <= set(found), "no longer needed"


def test_a_participle_is_found() -> None:
    methods = "class A:\n    @property\n    def shown(self): ...\n    def _told(self): ..."
    assert passive(ast.parse(f"def exported(): ...\n\ndef export(): ...\n\n{methods}")) == {"exported", "_told"}
