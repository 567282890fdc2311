"""Errors of code outside rlmin."""

from contextlib import suppress


class EnvError(RuntimeError):
    """An environment, or its process, failed; `__cause__` is its own error, if there is one."""


def in_words(error: BaseException) -> str:
    """The kind of an error and its text, if it has one."""
    text = ""
    with suppress(Exception):  # its text raises an error too
        text = str(error)
    return f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__
