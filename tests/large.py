"""Large packages: the extra `test` is without them, the extra `all` brings them.

A test that needs one is marked, `@pytest.mark.needs("onnx")`: it is skipped where the package is missing, and selected
by `pytest -m needs`. A file that needs one at its top also asks for it here, below its other imports.
"""

from typing import Any

import pytest

MISSING = "package of the extra `all` that is not installed: "
"""What the reason of a skipped test begins with; the package follows."""


def need(package: str) -> Any:
    """Import a package; where it is missing, the file that asks is skipped."""
    return pytest.importorskip(package, reason=f"{MISSING}{package}")
