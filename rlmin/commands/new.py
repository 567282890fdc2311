"""Beginning a part of your own: `rlmin new env|encoder NAME` writes a commented skeleton and its test."""

import keyword
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from rlmin.encoders import CELLS
from rlmin.files.atomic import write_atomic
from rlmin.settings import Positional, Settings

SKELETONS = Path(__file__).parent.parent / "configs" / "skeletons"
NEXT = {
    "env": "rlmin train --env {name}:{Title}-v0 --total-timesteps 100_000",
    "encoder": "rlmin train --env {name}:rlmin/TMaze-v0 --encoder {name} --total-timesteps 100_000",
}
"""The command to type next; it works with the files as written."""


@dataclass(frozen=True, kw_only=True)
class New(Settings):
    """Write a skeleton of an environment or of an encoder, and its test, into the working folder."""

    kind: Positional[Literal["env", "encoder"]]  # Part to begin: env or encoder
    name: Positional[str]  # Name of the module and, in capitals, of the class, such as lamp


def _is_module(name: str) -> bool:
    """Whether `import name` finds something that is not in the working folder."""
    found = PathFinder.find_spec(name, [path for path in sys.path if Path(path or ".").resolve() != Path.cwd()])
    return found is not None or name in sys.stdlib_module_names


def run_new(options: New) -> str:
    """Write NAME.py and test_NAME.py; returns what to do next.

    Raises:
        ValueError: the name is not that of a module, hides another, or has a file already; nothing has been written.
    """
    name = options.name.removesuffix(".py")
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ValueError(f"name={options.name!r}: expected the name of a module, small letters, such as lamp")
    files = {Path(f"{name}.py"): options.kind, Path(f"test_{name}.py"): f"test_{options.kind}"}
    for file in files:  # asked first: what such a file defines may be known by now
        if file.exists():
            raise ValueError(f"{file}: is there already; choose another name, or move it away")
    if _is_module(name) or (options.kind == "encoder" and name in CELLS):
        found = "a memory of rlmin" if options.kind == "encoder" and name in CELLS else "a module that is installed"
        raise ValueError(f"name={name!r}: is the name of {found}, which it would hide; choose another")
    title = "".join(part.capitalize() for part in name.split("_"))
    for file, skeleton in files.items():
        text = (SKELETONS / f"{skeleton}.txt").read_text(encoding="utf-8")
        write_atomic(file, text.replace("{name}", name).replace("{Title}", title).encode())
    command = NEXT[options.kind].format(name=name, Title=title)
    return "\n".join([*map(str, files), f"test it:  pytest test_{name}.py", f"train it: {command}"])
