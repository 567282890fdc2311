"""Form: a kind of file that a policy can be exported to. Each exporter defines one; `rlmin.commands.export.FORMS` lists
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
    """Optional inputs and outputs of the graph of one acting step, and values for its description."""

    value: bool  # whether the value is an output
    action_mask: bool  # whether masks of legal choices are an input
    run: Mapping[str, Any] | None  # origin of the policy, plain values, for the description


@dataclass(frozen=True)
class Form:
    """How one kind of file is made, written and run.

    Attributes:
        suffix: of its files; unique among all forms and the files beside them.
        pack: (policy, *, value, action_mask, run) -> the content of a file.
        runner: class that runs such content with the `predict` of stable-baselines3, for the check against the policy.
        write: (file, content) -> None.
        check_file: (file) -> None, raises a ValueError if the file cannot be written for a reason of this form.
    """

    suffix: str
    pack: Callable[..., bytes]
    runner: Callable[[bytes], ExportedPolicy]
    write: Callable[[Path, bytes], None] = write_atomic
    check_file: Callable[[Path], None] = _any_file
