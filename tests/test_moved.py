"""Old import paths: each finds the module that moved, and says where it is now."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlmin._import_hooks import MOVED

PACKAGE = Path(__file__).parent.parent / "rlmin"

CODE = """
import warnings
warnings.simplefilter("error")
import rlmin
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    from rlmin.losses import value_loss
    from rlmin import returns
    import rlmin.evaluate
import rlmin.learning.losses, rlmin.learning.returns, rlmin.evaluation.evaluate
assert value_loss is rlmin.learning.losses.value_loss and returns is rlmin.learning.returns
assert rlmin.evaluate is rlmin.evaluation.evaluate and rlmin.evaluation.evaluate.__name__ == "rlmin.evaluation.evaluate"
for one in caught:
    print(one.category.__name__, one.filename, one.message)
"""


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_module_at_its_new_place(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(MOVED[old])
    assert found.__name__ == MOVED[old], "it is the module itself, not a copy"


def test_every_form_of_import_warns_at_the_line_that_imports() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [(kind, file) for kind, file, _ in said] == [("DeprecationWarning", "<string>")] * 3
    assert said[0][2].startswith("rlmin.losses is now rlmin.learning.losses")


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'rlmin\.loses'"):
        importlib.import_module("rlmin.loses")


RENAMED = re.compile(r"old_names\(__name__, (.+)\)$", re.MULTILINE)


def renamed() -> Iterator[tuple[str, str, str]]:
    """Module, old name and new name of every function that has another name now."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for line in RENAMED.findall(path.read_text()):
            yield from ((module, old, new) for old, new in re.findall(r'(\w+)="(\w+)"', line))


@pytest.mark.parametrize(("module", "old", "new"), list(renamed()))
def test_an_old_name_of_a_function_is_the_function_and_warns(module: str, old: str, new: str) -> None:
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {module}.{new}"):
        assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        home.nothing  # noqa: B018
