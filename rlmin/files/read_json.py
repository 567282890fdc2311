"""JSON as plain values, of a bounded size: whatever is wrong with a file is one ValueError that names it."""

import json
from pathlib import Path
from typing import Any

from rlmin.files.read_bounded import read_bounded

BYTES = 16 * 2**20
"""Most bytes of a file."""


def read_json(path: Path, kind: type = dict) -> Any:
    """What a JSON file says.

    Args:
        path: of the file.
        kind: Python class of the value that it has to hold.

    Raises:
        ValueError: it cannot be read, is larger than any file of this kind, or holds something else.
    """
    content = read_bounded(path, most=BYTES, form="JSON")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error!s:.200})") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path}: expected JSON of a {kind.__name__}, found a {type(found).__name__}")
    return found
