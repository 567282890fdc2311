"""Classes of settings without the code beside them, so that help is there before torch is loaded.

A class of settings stands in the file that it configures, and importing that file loads torch. So a name is looked up
in the text of the file: the statement that binds it is run, and those that this one needs, here and in other files of
the package. Methods are left out. Whatever needs more than the standard library raises `NeedsImport`, and the caller
imports the real thing.
"""

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent.parent
REAL = re.compile(r"rlmin\.(settings|checks)\b")
"""Modules that are imported: they load nothing, and the sketches have to share their classes."""
CELL = re.compile(r'\bregister\(\s*Cell\(\s*"(\w+)"(.*?)^    ?\)', re.DOTALL | re.MULTILINE)


class NeedsImport(Exception):
    """A name cannot be known from the sources alone."""


class Registered(NamedTuple):
    """A cell as its file registers it."""

    module: str
    options: str | None  # name of the class of its options there; None: it has none


def sketch(module: str, name: str) -> Any:
    """What a name stands for in a module of the package; a class without its methods.

    Raises:
        NeedsImport: that takes more than the sources and the standard library.
    """
    if REAL.match(module):
        return getattr(importlib.import_module(module), name)
    return read_source(module).get(name)


@functools.cache
def read_source(module: str) -> "Source":
    """The source of a module of the package."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return Source(module, place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))


class Source:
    """One file, whose names are bound when they are asked for."""

    def __init__(self, module: str, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.statements = {name: one for one in self.tree.body for name in _bound(one)}
        self.names: dict[str, Any] = {"__name__": module}
        if module == "rlmin.encoders.cell":
            self.names["CELLS"] = list(find_cells())  # the real one is filled by imports
        if module == "rlmin.agents.agent":
            self.names["AGENTS"] = find_agents()

    def get(self, name: str) -> Any:
        """See `sketch`."""
        if name not in self.names:
            if name not in self.statements:
                raise NeedsImport(f"{self.names['__name__']}: {name}")
            self._bind(self.statements[name], name)
        return self.names[name]

    def _bind(self, statement: ast.stmt, name: str) -> None:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "rlmin":
            original = next(one.name for one in statement.names if name in (one.asname, one.name))
            self.names[name] = sketch(str(statement.module), original)
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module = statement.module if isinstance(statement, ast.ImportFrom) else statement.names[0].name
            if str(module).split(".")[0] not in sys.stdlib_module_names:
                raise NeedsImport(str(module))
        statement = _strip(statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in self.statements:
                self.get(node.id)
        try:
            exec(compile(ast.Module([statement], []), self.names["__name__"], "exec"), self.names)
        except NameError as error:
            raise NeedsImport(str(error)) from None
        if isinstance(statement, ast.ClassDef):
            lines = self.text.splitlines()[statement.lineno - 1 : statement.end_lineno]
            self.names[name].__source__ = "\n".join(lines)  # with the comments, which are the help


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a file binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (one.asname or one.name.split(".")[0] for one in statement.names)
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _strip(statement: ast.stmt) -> ast.stmt:
    """The statement without what settings do not need: methods, and the type of a constant."""
    if isinstance(statement, ast.FunctionDef):
        raise NeedsImport(statement.name)
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return ast.copy_location(ast.Assign([statement.target], statement.value, lineno=statement.lineno), statement)
    if not isinstance(statement, ast.ClassDef):
        return statement
    body = [one for one in statement.body if not isinstance(one, ast.FunctionDef)]
    bare = ast.ClassDef(statement.name, statement.bases, statement.keywords, body, statement.decorator_list)
    if sys.version_info >= (3, 12):
        bare.type_params = statement.type_params
    return ast.copy_location(bare, statement)


@functools.cache
def find_cells() -> Mapping[str, Registered]:
    """Every cell of the package by name, in the order in which they are registered."""
    found = dict[str, Registered]()
    for one in ast.parse((PACKAGE / "encoders" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(one, ast.ImportFrom):
            path = PACKAGE.joinpath(*str(one.module).split(".")[1:]).with_suffix(".py")
            for name, more in CELL.findall(path.read_text(encoding="utf-8")):
                options = re.search(r"\boptions=(\w+)", more)
                found.setdefault(name, Registered(str(one.module), options and options[1]))
    return found


def find_agents() -> list[str]:
    """The names of the algorithms of the package, in the order in which they are registered."""
    face = (PACKAGE / "agents" / "__init__.py").read_text(encoding="utf-8")
    files = dict.fromkeys(re.findall(r"from rlmin\.agents\.(\w+) import", face))
    texts = [(PACKAGE / "agents" / f"{name}.py").read_text(encoding="utf-8") for name in files]
    named = re.compile(r'^    name(?:: ClassVar\[str\])? = "(\w+)"$', re.MULTILINE)
    return [name for text in texts for name in named.findall(text)]
