"""Errors of code outside rlmin."""

from contextlib import suppress

LONGEST = 1000
"""Number of letters of an error's text that are shown."""


class EnvError(RuntimeError):
    """An environment, or its process, failed; `__cause__` is its own error, if there is one."""


def is_raised_in(error: BaseException, package: str) -> bool:
    """Whether an error comes from a package's own code: it could not work with what it was given."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package


def in_words(error: BaseException) -> str:
    """The kind of an error and its text, if it has one."""
    text = ""
    with suppress(Exception):  # its text raises an error too
        text = str(error)[:LONGEST]
    return f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__
