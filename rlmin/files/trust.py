"""What a name in a file may import.

An environment id may name a module, "lamp:Lamp-v0": importing it runs its code. An id that the user types may do so. An
id that a run, a dataset, a preset or a suite brings along is data, so it is marked here as `Foreign`, and
`check_import` lets it import a module only if that can run nothing new: the module is imported already, or is an
installed package whose environments rlmin knows. `trust=True`, or `--trust`, takes the mark away.
"""

import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORM = re.compile(r"[\w.:/-]{1,200}")
"""What gymnasium allows in an id; no quote, no blank, no line break."""


class Foreign(str):
    """An environment id that came from a file."""

    __slots__ = ()


def from_file(id: Any, *, trust: bool = False, where: str) -> str:
    """An id as a file has it, marked as `Foreign` unless the user trusts the file.

    Args:
        id: what the file says.
        trust: whether the user trusts the file.
        where: the file, for the error message.

    Raises:
        ValueError: it is no id.
    """
    if not isinstance(id, str) or not FORM.fullmatch(id):
        raise ValueError(f"{where}: expected an environment id as 'Name-v0' or 'module:Name-v0', got {id!r:.80}")
    return str(id) if trust else Foreign(id)


def mark_header(header: dict[str, Any], *, trust: bool = False, where: str) -> None:
    """Mark the ids in the header of a checkpoint, in place: see `from_file`."""
    env, dataset = header.get("env"), header.get("dataset")
    data_env = dataset.get("env") if isinstance(dataset, dict) else None
    if isinstance(data_env, str):
        header["dataset"]["env"] = from_file(data_env, trust=trust, where=where)
    for spec in (env, data_env):
        if isinstance(spec, dict) and spec.get("id") is not None:
            spec["id"] = from_file(spec["id"], trust=trust, where=where)


def check_import(id: str, module: str, known: Collection[str]) -> None:
    """Raise a ValueError if importing `module` for the sake of `id` could run code that the user never chose.

    Args:
        id: that names the module; one that is not `Foreign` may import anything.
        module: dotted name.
        known: packages of environments that may be imported, if they are installed.
    """
    if not isinstance(id, Foreign) or module in sys.modules:
        return
    if module in known and not _in_working_folder(module):
        return
    raise ValueError(
        f"environment {str(id)!r}: this id comes from a file, and would import the module {module!r}, whose code would "
        f"run. If you trust it: --trust, or name it yourself by --env {id}; in Python: trust=True, or import {module} "
        "first"
    )


@contextmanager
def allow_typed(ids: Sequence[str]) -> Iterator[None]:
    """In here modules named by these ids, which the user typed at a command, are found in the working folder too.

    It comes last on the path, so that no file in it takes the place of an installed package.
    """
    here = str(Path.cwd())
    if here in sys.path or not any(":" in id for id in ids):
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _in_working_folder(package: str) -> bool:
    """Whether a package would be found in the working folder, which may be the folder of a stranger's run."""
    spec = importlib.util.find_spec(package)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec is not None else []
    here = Path.cwd().resolve()
    return any(here in (Path(place).resolve().parent, Path(place).resolve()) for place in places if place)
