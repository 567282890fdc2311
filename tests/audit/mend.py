"""A place where a fault was mended, and how to undo that in a copy."""

import io
import itertools
import os
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_times = itertools.count(2**31)
"""When files were written, in seconds: Python knows its bytecode by them, and two mends may be undone within one."""


class Mend(NamedTuple):
    """One mend of a row, and the test that misses it."""

    row: str  # "A1"
    about: str  # what goes wrong without it
    file: str  # below the package
    text: str  # stands there exactly once; code without comments, which may say something else tomorrow
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
        code = _drop_comments(content)
        if code.count(self.text) != 1:
            raise ValueError(f"{self.row} {self.about}: {self.file} has its text {code.count(self.text)} times")
        _write(path, code.replace(self.text, self.instead))
        try:
            yield
        finally:
            _write(path, content)


def _write(path: Path, content: str) -> None:
    path.write_text(content)
    time = next(_times)
    os.utime(path, (time, time))


def _drop_comments(code: str) -> str:
    lines = code.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    return "".join(lines)
