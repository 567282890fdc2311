"""Old import paths: each finds the module that moved, and says where it is now."""

import importlib
import subprocess
import sys

import pytest

from rlmin._moved import MOVED

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
