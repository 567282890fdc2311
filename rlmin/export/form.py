"""Form: what a policy can be exported to. Each exporter's file ends in one, and `rlmin.commands.export.FORMS` lists
them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from rlmin.export.numpy_policy import ExportedPolicy
from rlmin.runs.checkpoint import write_atomic


def _any_file(file: Path) -> None:
    """Accept any file."""


class GraphOptions(TypedDict, total=False):
    """What a graph of one acting step can have besides the action, and what its description says."""

    value: bool  # whether the value is an output
    action_mask: bool  # whether masks of legal choices are an input
    run: Mapping[str, Any] | None  # where the policy comes from, plain values, for the description


@dataclass(frozen=True)
class Form:
    """How one kind of file is made, read again and written.

    Attributes:
        suffix: of its files; no two forms, nor what is written beside one, share it.
        pack: (policy, *, value, action_mask, run) -> the content of a file.
        runner: class that runs such a content with the `predict` of stable-baselines3: the check against the policy.
        write: (file, content) -> None.
        check_file: (file) -> None, raises a ValueError where the file cannot be written, beside the usual reasons.
    """

    suffix: str
    pack: Callable[..., bytes]
    runner: Callable[[bytes], ExportedPolicy]
    write: Callable[[Path, bytes], None] = write_atomic
    check_file: Callable[[Path], None] = _any_file
