"""What can go wrong in code that is not rlmin's."""

from contextlib import suppress


class EnvError(RuntimeError):
    """An environment, or the process it runs in, failed; `__cause__` is its own error, where there is one."""


def in_words(error: BaseException) -> str:
    """The kind of an error and its text, if it has one."""
    text = ""
    with suppress(Exception):  # whose text is an error too
        text = str(error)
    return f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__
