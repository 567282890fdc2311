"""Errors of commands: one line, printed once even if several processes run the command."""

import os
import sys


def report_error(error: Exception) -> bool:
    """Print an error that the user can answer, such as bad input, as one line; returns whether it is one.

    Any other error is a fault of rlmin. Of several processes under torchrun, one prints.
    """
    if not _has_answer(error):
        return False
    if not _is_reported(error):
        print(f"rlmin: {_one_line(str(error))}", file=sys.stderr, flush=True)
    return True


def _one_line(text: str) -> str:
    """Text as one line that moves no cursor and changes no colour: a file or an environment may say anything."""
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in " ".join(text.split()))


def _has_answer(error: Exception) -> bool:
    """Whether an error is bad input, or one of an environment's own."""
    if isinstance(error, ValueError | FloatingPointError | OSError | ImportError):
        return True
    from rlmin.vector.faults import EnvError

    return isinstance(error, EnvError)


def _is_reported(error: Exception) -> bool:
    """Whether another process of a run under torchrun has printed its error, which ends this process too."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    from rlmin.distributed.join import is_reported

    return is_reported(error)
