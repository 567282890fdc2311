"""One acting step of a policy with everything explicit: every input and output a named tensor, the memory among them.

    observation, or observation.NAME for every leaf    [B, *shape], as the environment gives it
    start                                              [B] bool, the observation opens an episode
    previous_action, previous_reward                   where the policy reads them: [B, K] or [B, A], and [B]
    action_mask                                        where asked for: [B, n], True is legal
    state.block0.h, ...                                [B, ...] memory

    logits              [B, n] of choices, choice after choice, illegal ones at -1e8; or mean and std [B, A] of a point
    action              [B, ...] the most likely action, in the environment's own form
    value               [B], where asked for
    next_state.block0.h, ...   memory after the step
    next_previous_action       the most likely action in rlmin's form (indices from 0; a point before it is clipped)

An input X that has an output next_X is carried from step to step and begins as zeros. A program that samples instead
of taking the most likely action feeds its sample as previous_action.
"""

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch import Tensor, nn

from rlmin.encoders import Encoder, Stack
from rlmin.encoders.cell import cell_of
from rlmin.export.description import describe_policy
from rlmin.export.form import Form, GraphOptions
from rlmin.export.numpy_policy import ExportedPolicy, input_name
from rlmin.files.read_bounded import read_bounded
from rlmin.policy import Policy
from rlmin.policy.heads import Categorical, Gaussian
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD
from rlmin.runs.checkpoint import write_atomic
from rlmin.settings.boundary import checked
from rlmin.spaces import leaves_of
from rlmin.types import State, map_state, tensors_of

DESCRIPTION = "rlmin.json"
"""Name of the description inside a .pt2 file."""
LARGEST = 2**31
"""Most bytes of a file that is read."""
EXAMPLE_ROWS = 3  # torch would take a batch of one for a constant


class StepModule(nn.Module):
    """One acting step of a policy: see the top of this file. A copy of the weights it needs, on the CPU.

    Args:
        policy: not changed.
        value: whether to compute the value, and to carry the memory of a critic that has its own.
        action_mask: whether to read masks of legal choices.

    Raises:
        ValueError: `action_mask` for an action that is not a choice.
    """

    def __init__(self, policy: Policy, *, value: bool = False, action_mask: bool = False) -> None:
        super().__init__()
        if action_mask and not policy.action_head.mask_size:
            raise ValueError(f"action_mask=True needs choices to forbid, the action space is {policy.action_space}")
        own = copy.deepcopy(policy).cpu().eval()
        self.describe, self.masked = describe_policy(policy, value=value), action_mask
        self.leaves = leaves_of(policy.observation_space if value else policy.acting_space)
        self.trunks = own.trunks if value else own.trunks[:1]
        self.action_head, self.value_head = own.action_head, own.value_head if value else None
        self.state = cast(tuple[State, ...], own.initial_state(1)[: len(self.trunks)])
        self.state_names = _state_names([cast(Stack, trunk.encoder) for trunk in self.trunks])
        self.action_dtype = torch.from_numpy(np.empty(0, policy.action_space.dtype)).dtype

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named inputs, [B, ...] each -> named outputs, [B, ...] each."""
        observation = {leaf.name: inputs[input_name(leaf.name, leaf.path)] for leaf in self.leaves}
        for leaf in self.leaves:
            if leaf.start is not None:
                observation[leaf.name] = observation[leaf.name] - leaf.start
        observation |= {name: inputs[name] for name in (PREVIOUS_ACTION, PREVIOUS_REWARD) if name in inputs}
        given = iter([inputs[f"state.{name}"] for name in self.state_names])
        state = cast(tuple[State, ...], map_state(lambda _: next(given), self.state))
        trunks = zip(cast(Any, self.trunks), state, strict=True)
        ran = [trunk.step(observation, part, inputs["start"]) for trunk, part in trunks]
        outputs = self._act(ran[0][0], inputs.get("action_mask"))
        if self.value_head is not None:
            outputs["value"] = self.value_head(ran[-1][0])
        after = [x for _, part in ran for x in tensors_of(part)]
        return outputs | {f"next_state.{name}": x for name, x in zip(self.state_names, after, strict=True)}

    def example(self, rows: int = EXAMPLE_ROWS) -> dict[str, Tensor]:
        """Inputs of `rows` environments before their first step: zeros, except start, masks and smallest choices."""
        head, inputs = self.action_head, {}
        for leaf in self.leaves:
            first = torch.zeros((), dtype=leaf.dtype) if leaf.start is None else leaf.start
            inputs[input_name(leaf.name, leaf.path)] = first.expand(rows, *leaf.shape).clone()
        inputs["start"] = torch.ones(rows, dtype=torch.bool)
        if self.describe["previous_action"]:
            inputs[PREVIOUS_ACTION] = torch.zeros((rows, *head.event_shape), dtype=head.dtype)
        if self.describe["previous_reward"]:
            inputs[PREVIOUS_REWARD] = torch.zeros(rows)
        if self.masked:
            inputs["action_mask"] = torch.ones(rows, head.mask_size, dtype=torch.bool)
        state = tensors_of(self.state)
        return inputs | {
            f"state.{name}": x.new_zeros(rows, *x.shape[1:]) for name, x in zip(self.state_names, state, strict=True)
        }

    def description(self, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`rlmin.export.description.describe_policy`, and the names of inputs and outputs with their shapes less B."""
        example = self.example(1)
        with torch.no_grad():
            after = self(example)
        about = self.describe | {"run": dict(run or {})}
        for key, tensors in (("inputs", example), ("outputs", after)):
            about[key] = {name: {"shape": list(x.shape[1:]), "dtype": _name(x.dtype)} for name, x in tensors.items()}
        return about

    def _act(self, features: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The output of the head, and its most likely action."""
        head = self.action_head
        distribution = head(features, mask)
        chosen = distribution.mode()
        outputs = {}
        if isinstance(distribution, Categorical):
            outputs["logits"] = distribution.logits.flatten(-2).index_select(-1, cast(Tensor, head.slots))
        elif isinstance(distribution, Gaussian):
            outputs["mean"] = distribution.mean
            outputs["std"] = distribution.log_std.exp().expand_as(distribution.mean).clone()
        outputs["action"] = head.to_env(chosen).to(self.action_dtype)
        if self.describe["previous_action"]:
            outputs[f"next_{PREVIOUS_ACTION}"] = chosen.clone()
        return outputs


class TorchExportPolicy(ExportedPolicy):
    """A .pt2 file as a policy with the `predict` of stable-baselines3; see `ExportedPolicy`.

    Args:
        file: path, or content. `torch.export.load` may run it, so it has to come from a trusted source.
        seed: of samples; None: any.

    Raises:
        ValueError: not a .pt2 file, or not one exported by rlmin.
    """

    def __init__(self, file: str | Path | bytes, *, seed: int | None = None) -> None:
        content = file if isinstance(file, bytes) else read_bounded(Path(file), most=LARGEST, form="a program")
        extra = {DESCRIPTION: ""}
        try:
            program = torch.export.load(io.BytesIO(content), extra_files=extra)
        except Exception as error:  # torch raises errors of many classes
            name = "content" if isinstance(file, bytes) else file
            raise ValueError(f"{name}: damaged, expected a .pt2 file of torch.export ({error})") from None
        source = "content" if isinstance(file, bytes) else str(file)
        super().__init__(extra[DESCRIPTION], source, seed=seed)
        self._module = program.module()
        self._try(source)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the exported program."""
        with torch.no_grad():
            outputs = self._module({name: torch.from_numpy(x) for name, x in inputs.items()})
        return {name: x.numpy() for name, x in outputs.items()}


def export_program(module: StepModule) -> torch.export.ExportedProgram:
    """`torch.export.export` of a step, any number of rows."""
    batch = torch.export.Dim("batch", min=1)
    example = module.example()
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=({name: {0: batch} for name in example},))


@checked
def pack_torch(
    policy: Policy, *, value: bool = False, action_mask: bool = False, run: Mapping[str, Any] | None = None
) -> bytes:
    """The content of a .pt2 file: see `export_torch`."""
    module = StepModule(policy, value=value, action_mask=action_mask)
    program, content = export_program(module), io.BytesIO()
    program.example_inputs = None  # the file would hold them as a pickle
    torch.export.save(program, content, extra_files={DESCRIPTION: json.dumps(module.description(run))})
    return content.getvalue()


@checked
def export_torch(policy: Policy, file: str | Path, **options: Unpack[GraphOptions]) -> None:
    """Write one acting step as a .pt2 file: see the top of this file.

    Args:
        policy: any.
        file: appears whole or not at all. Its folder is made.
        options: value, action_mask and run, see `rlmin.export.form.GraphOptions`.

    Raises:
        ValueError: `action_mask` for an action that is not a choice.
    """
    write_atomic(Path(file), pack_torch(policy, **options))


def _state_names(stacks: list[Stack]) -> list[str]:
    """A name for every tensor of a state, in the order of `tensors_of`."""
    names = []
    for who, stack in zip(("actor.", "critic.") if len(stacks) > 1 else ("",), stacks, strict=True):
        for i, block in enumerate(stack.blocks):
            conv = ["conv"] if block.conv is not None else []
            names += [f"{who}block{i}.{part}" for part in (*conv, *_parts(cast(Encoder, block.mixer)))]
    return names


def _parts(mixer: Encoder) -> tuple[str, ...]:
    """A name for each tensor of a mixer's state: those of its registration, or numbers."""
    cell, count = cell_of(mixer), len(tensors_of(mixer.initial_state(1)))
    if cell is not None and len(cell.state_names) == count:
        return cell.state_names
    return ("h",) if count == 1 else tuple(f"h{i}" for i in range(count))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


FORM = Form(".pt2", pack_torch, TorchExportPolicy)
