"""A child of this process: what it says, and how it ends."""

import os
import warnings
from collections.abc import Callable
from typing import NamedTuple


class Child(NamedTuple):
    """A forked process."""

    pid: int
    output: int  # end of a pipe that reads what the child writes


def fork(act: Callable[[int], object]) -> Child:
    """A child that runs `act`, given the end of a pipe to write to, and ends with 0; with 1 where `act` raises."""
    output, written = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads; the child needs none of them
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act(written)
            code = 0
        except BaseException as error:
            os.write(written, f"{type(error).__name__}: {error}".encode()[:4096])
        finally:
            os._exit(code)
    os.close(written)
    return Child(pid, output)
