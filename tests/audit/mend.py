"""A place where a fault was mended, and how to undo that in a copy."""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

COMMENT = re.compile(r"  # .*$", re.MULTILINE)
"""Behind code: it may say something else tomorrow."""
_times = itertools.count(2**31)
"""When files were written, in seconds: Python knows its bytecode by them, and two mends may be undone within one."""


class Mend(NamedTuple):
    """One mend of a row, and the test that misses it."""

    row: str  # "A1"
    about: str  # what goes wrong without it
    file: str  # below the package
    text: str  # stands there exactly once
    instead: str  # without the mend
    test: str  # "test_lock.py::test_a_second_process_is_refused": below tests/

    @contextmanager
    def undo(self, package: Path) -> Iterator[None]:
        """Without the mend, in a copy of the package.

        Raises:
            ValueError: the text is not there, or not once: the mend has moved.
        """
        path = package / self.file
        content = path.read_text()
        code, text = COMMENT.sub("", content), COMMENT.sub("", self.text)
        if code.count(text) != 1:
            raise ValueError(f"{self.row} {self.about}: {self.file} has its text {code.count(text)} times")
        _write(path, code.replace(text, self.instead))
        try:
            yield
        finally:
            _write(path, content)


def _write(path: Path, content: str) -> None:
    path.write_text(content)
    time = next(_times)
    os.utime(path, (time, time))
