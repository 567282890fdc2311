"""A policy as one .npz file for numpy alone: its weights, its description, and one acting step as a list of calls.

    rlmin.export.numpy_policy      runs it, needs nothing but numpy, and is copied beside the file

A step is some fifty numpy calls on buffers made once. Constants are folded at export: scales and shifts of norms and
biases of convolutions are part of the product that follows, and additions to the residual stream have mean 0,
so that the next norm has no mean to subtract.

Supported: a Stack as PolicyConfig makes it, of a cell that has a numpy form, with one fused token a step.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlmin.encoders import Stack
from rlmin.encoders.block import Block
from rlmin.encoders.numpy_program import INSTEAD, Program, array, linear, require_class, scale_before
from rlmin.export import numpy_policy
from rlmin.export.description import describe_policy
from rlmin.export.form import Form
from rlmin.export.numpy_inputs import embed
from rlmin.export.numpy_memory import add_block, add_norm
from rlmin.export.numpy_policy import DESCRIPTION, NumpyPolicy
from rlmin.files.read_bounded import read_bounded
from rlmin.policy import Policy, Trunk
from rlmin.policy.heads import BoxHead
from rlmin.runs.checkpoint import write_atomic
from rlmin.settings.boundary import checked
from rlmin.spaces import NUMPY_TYPE

RUNNER = "numpy_policy.py"
"""The runner, which is written beside every .npz."""


def pack_numpy(policy: Policy, *, run: Mapping[str, Any] | None = None) -> bytes:
    """The content of an .npz file: see `export_numpy`."""
    program = program_of(policy)
    description = describe_policy(policy, run) | program.describe()
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, **program.weights, **{DESCRIPTION: text})  # type: ignore[arg-type]
    return content.getvalue()


@checked
def export_numpy(policy: Policy, file: str | Path, *, run: Mapping[str, Any] | None = None) -> None:
    """Write a policy for numpy alone, and beside it `numpy_policy.py`, which runs it.

    Args:
        policy: of an encoder that has a numpy form (`rlmin list encoders`).
        file: .npz; appears whole or not at all. Its folder is made.
        run: origin of the policy, plain values, for the description.

    Raises:
        ValueError: the policy has no numpy form (the message says what can run it); see also `check_beside`.
    """
    write_numpy(pack_numpy(policy, run=run), Path(file))


def write_numpy(content: bytes, file: Path) -> None:
    """Write the output of `pack_numpy`, and the runner beside it, into a folder that is made if it is missing.

    Raises:
        ValueError: see `check_beside`.
    """
    check_beside(file)
    write_atomic(file.with_name(RUNNER), _runner())
    write_atomic(file, content)


def check_beside(file: Path) -> None:
    """Raise a ValueError if the runner beside `file` would replace something else, or be replaced by it."""
    beside = file.with_name(RUNNER)
    if file == beside:
        raise ValueError(f"{file}: is the name of the runner beside the file; use policy.npz")
    if not beside.exists():
        return
    content = read_bounded(beside, most=2**20, form="Python") if beside.is_file() else b""
    if content.partition(b"\n")[0] != _runner().partition(b"\n")[0]:
        raise ValueError(f"{beside}: is not a runner, and one would overwrite it; choose another folder")


def _runner() -> bytes:
    return Path(numpy_policy.__file__).read_bytes()


def program_of(policy: Policy) -> Program:
    """One acting step of a policy.

    Raises:
        ValueError: a part of the policy has no numpy form.
    """
    trunk, head = policy.trunks[0], policy.action_head
    if type(trunk) is not Trunk:
        raise ValueError(f"export to numpy: tokens={policy.config.tokens!r} is not supported; {INSTEAD}")
    stack = require_class(trunk.encoder, Stack)
    program = Program(np.dtype(NUMPY_TYPE.get(head.projection.weight.dtype, np.float64)))
    width = stack.output_size
    program.inputs |= {"start": program.buffer("start", dtype="bool"), "state": "memory"}
    program.weight("mean", np.full((width, 1), 1 / width))
    program.call("wipe", "memory", "start")
    x = embed(program, policy, trunk.inputs, width)
    centred = True
    for i, block in enumerate(stack.encoders()):
        centred = add_block(program, f"block{i}", require_class(block, Block), x, centred)
    read, y = program.ending_in_one("read", width)
    scale, shift = add_norm(program, "norm", stack.norm, x, y, width, centred)
    output = program.product("head", read, *scale_before(scale, shift, linear(head.projection)))
    if isinstance(head, BoxHead):
        program.outputs["mean"] = output
        deviation = program.weight("deviation", array(head.log_std.exp()))
        program.outputs["std"] = program.buffer("std", head.event_shape[0])
        program.call("copyto", "std", deviation)
    else:
        program.outputs["logits"] = output
    program.outputs["next_state"] = "memory"
    return program


def _pack(policy: Policy, *, value: bool, action_mask: bool, run: Mapping[str, Any]) -> bytes:
    """`pack_numpy` with the arguments of a form: the file has no value, and `predict` applies masks."""
    return pack_numpy(policy, run=run)


def _write(file: Path, content: bytes) -> None:
    write_numpy(content, file)


FORM = Form(".npz", _pack, NumpyPolicy, _write, check_beside)
