"""A policy as an ONNX model: one acting step with named inputs and outputs, the memory among them, any number of rows.

The names are those of rlmin.export.torch_export. The model's metadata hold, under "rlmin", the description as JSON:
spaces, shapes and the origin of the policy (rlmin.export.description).
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from rlmin.checks import require
from rlmin.export.form import Form, GraphOptions
from rlmin.export.numpy_policy import ExportedPolicy
from rlmin.export.torch_export import LARGEST, StepModule, export_program
from rlmin.files.read_bounded import read_bounded
from rlmin.policy import Policy
from rlmin.runs.checkpoint import write_atomic
from rlmin.settings.boundary import checked

KEY = "rlmin"
"""Key of the metadata entry that holds the description."""
FATAL = 4
"""The highest of onnxruntime's levels of messages."""


class OnnxPolicy(ExportedPolicy):
    """An ONNX model as a policy with the `predict` of stable-baselines3; see `ExportedPolicy`.

    Args:
        file: path, or content. It is a program: a stranger's may take any time and memory. It reads no other file.
        seed: of samples; None: any.
        threads: of onnxruntime; a step of few rows is quickest on one.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: not an ONNX model, or not one exported by rlmin.
    """

    def __init__(self, file: str | Path | bytes, *, seed: int | None = None, threads: int = 1) -> None:
        runtime = require("onnxruntime", extra="export")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = FATAL  # an error is raised, and would be printed too
        content = file if isinstance(file, bytes) else read_bounded(Path(file), most=LARGEST, form="a program")
        source = "content" if isinstance(file, bytes) else str(file)
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises errors of many classes of its own
            words = " ".join(str(error).split())
            raise ValueError(f"{source}: damaged, expected an ONNX model ({words:.300})") from None
        super().__init__(self._session.get_modelmeta().custom_metadata_map.get(KEY, ""), source, seed=seed)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._try(source)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the model."""
        return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))


@checked
def pack_onnx(
    policy: Policy, *, value: bool = False, action_mask: bool = False, run: Mapping[str, Any] | None = None
) -> bytes:
    """The content of an .onnx file: see `export_onnx`."""
    onnx = require("onnx", extra="export")
    require("onnxscript", extra="export")
    module = StepModule(policy, value=value, action_mask=action_mask)
    description = module.description(run)
    program = export_program(module)
    with _quiet():
        exported = torch.onnx.export(
            program,
            input_names=list(description["inputs"]),
            output_names=list(description["outputs"]),
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    for x in (*proto.graph.input, *proto.graph.output):  # torch gives the axis a name of its own
        x.type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.ClearField("value_info")  # shapes of inner values, with that name; shape inference finds them again
    proto.producer_name, proto.producer_version = "rlmin", description["rlmin"]
    proto.metadata_props.add(key=KEY, value=json.dumps(description))
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


@checked
def export_onnx(policy: Policy, file: str | Path, **options: Unpack[GraphOptions]) -> None:
    """Write one acting step as an ONNX model: see the top of this file; arguments as of `export_torch`.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: `action_mask` for an action that is not a choice.
    """
    write_atomic(Path(file), pack_onnx(policy, **options))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's warnings about torchvision, which is not needed, and about a deprecated class of its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


FORM = Form(".onnx", pack_onnx, OnnxPolicy)
