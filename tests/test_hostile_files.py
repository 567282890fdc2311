"""Exports and zips that a stranger made: one error, in bounded time and memory, before anything acts by them."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlmin import PPO
from rlmin.export.numpy_export import pack_numpy
from rlmin.export.numpy_policy import DESCRIPTION, LARGEST, NumpyPolicy
from rlmin.export.onnx import KEY, OnnxPolicy, pack_onnx
from rlmin.files.plain import decode
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY

SMALL: dict[str, Any] = {"width": 4, "layers": 1, "horizon": 4, "num_envs": 2, "minibatches": 1, "epochs": 1}
Told = dict[str, Any]


@pytest.fixture(scope="module")
def agent() -> PPO:
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": 3}, **SMALL)


@pytest.fixture(scope="module")
def npz(agent: PPO) -> bytes:
    return pack_numpy(agent.policy)


def put(*path: Any, to: Any) -> Callable[[Told], None]:
    """What sets one entry of a description."""

    def change(told: Told) -> None:
        part: Any = told
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = to

    return change


def forged(content: bytes, change: Callable[[Told], Any]) -> bytes:
    with np.load(io.BytesIO(content)) as opened:
        arrays = {name: opened[name] for name in opened.files}
    told = json.loads(arrays[DESCRIPTION].tobytes())
    change(told)
    arrays[DESCRIPTION] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


# where it is refused: "description" as it is read, "program" as its arrays are made, "step" in a first step
FORGED = {
    "a buffer of terabytes": ("program", put("program", "buffers", 0, to=["zero", [2**20, 2**20], "float32", 0])),
    "many large buffers": (
        "program",
        lambda told: told["program"]["buffers"].extend([["x", [LARGEST], "bool", 0]] * 9),
    ),
    "text for numbers": ("program", put("program", "buffers", 0, 2, to="U1000000")),
    "objects for numbers": ("program", put("program", "buffers", 0, 2, to="object")),
    "a function that is not listed": ("program", put("program", "calls", 0, to=["load", "zero"])),
    "a call of too few": ("step", put("program", "calls", 0, to=["wipe", "memory"])),
    "a call on text": ("program", put("program", "calls", 0, to=["wipe", "memory", "no such array"])),
    "a product of arrays that do not fit": ("step", put("program", "calls", 0, to=["matmul", "zero", "zero", "x"])),
    "a memory of another shape": ("description", put("inputs", "state", "shape", to=[2**40])),
    "a memory that the program has not": ("step", put("inputs", "state", "shape", to=[3])),
    "choices without end": ("description", put("action", "choices", to=[2**40])),
    "choices that the program has not": ("step", put("action", "choices", to=[9])),
    "a choice of a fraction": ("description", put("action", "choices", to=[1.5])),
    "nothing to see": ("description", put("observation", to=[])),
    "an observation of text": ("description", put("observation", 0, "dtype", to="U9")),
    "an observation that nobody reads": ("step", put("observation", 0, "shape", to=[2, 2, 9])),
    "a shape below 0": ("description", put("observation", 0, "shape", to=[-1])),
    "no word on the action before": ("description", lambda told: told.pop("previous_action")),
}
WORDS = {
    "description": "its description is incomplete",
    "program": "its program does not fit",
    "step": "a step does not",
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_npz_is_one_error_before_anything_acts_by_it(kind: str, npz: bytes) -> None:
    assert NumpyPolicy(npz).description["action"]["choices"] == [4]
    where, change = FORGED[kind]
    content = forged(npz, change)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"^content: damaged, {WORDS[where]}"):
        NumpyPolicy(content)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * 2**20, "it was allocated"


def test_a_description_that_nests_without_end_is_one_error(npz: bytes) -> None:
    file = io.BytesIO()
    np.savez(file, **{DESCRIPTION: np.frombuffer(b"[" * 100_000, np.uint8)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it has no description"):
        NumpyPolicy(file.getvalue())


@pytest.mark.needs("onnx", "onnxruntime", "onnxscript")
def test_a_forged_onnx_model_is_one_error_and_nothing_is_printed(
    agent: PPO, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    content = pack_onnx(agent.policy)
    assert OnnxPolicy(content).description["action"]["choices"] == [4]

    def model(change: Callable[[Any, Told], Any]) -> bytes:
        proto = onnx.load_from_string(content)
        told = json.loads(proto.metadata_props[0].value)
        assert proto.metadata_props[0].key == KEY
        change(proto, told)
        proto.metadata_props[0].value = json.dumps(told)
        packed: bytes = proto.SerializeToString()
        return packed

    def outside(proto: Any, told: Told) -> None:
        (tmp_path / "secret").write_bytes(bytes(2**16))
        weight = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
        for key, value in (("location", "secret"), ("offset", "0"), ("length", str(len(weight.raw_data)))):
            weight.external_data.add(key=key, value=value)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL

    forged = {
        "expected an ONNX model": outside,
        "its description is incomplete": lambda proto, told: put("action", "choices", to=[2**40])(told),
        "a step does not fit its description": lambda proto, told: (
            put("inputs", "start", to=None)(told) or told["inputs"].pop("start")
        ),
    }
    for words, change in forged.items():
        path = tmp_path / "bad.onnx"
        path.write_bytes(model(change))
        with pytest.raises(ValueError, match=rf"bad\.onnx: damaged, {words}") as caught:
            OnnxPolicy(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.needs("rl_zoo3")
def test_a_zip_that_is_a_bomb_or_damaged_is_one_error(tmp_path: Path) -> None:
    from rlmin.interop.zoo import UNPACKED, ZooPPO

    stable_baselines3 = pytest.importorskip("stable_baselines3.common.env_util")
    good = tmp_path / "agent.zip"
    ZooPPO("MlpPolicy", stable_baselines3.make_vec_env("CartPole-v1", 2), n_steps=16, batch_size=32).save(good)
    with zipfile.ZipFile(good) as archive:
        files = {name: archive.read(name) for name in (CONFIG, POLICY, LEARNER)}

    def packed(change: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            for name, x in (files | change).items():
                archive.writestr(name, x)
        return content.getvalue()

    bomb = packed({LEARNER: bytes(UNPACKED * 2**20)})
    assert len(bomb) < 2**20
    whole = packed({})
    unknown = bytearray(packed({}, zipfile.ZIP_STORED))
    unknown[unknown.index(b"PK\x01\x02") + 10] = 77  # a compression that nobody knows
    secret = bytearray(packed({}, zipfile.ZIP_STORED))
    secret[secret.index(b"PK\x01\x02") + 8] |= 1  # encrypted
    for content in (bomb, whole[: len(whole) // 2], bytes(unknown), bytes(secret)):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.zip: expected a zip that rlmin_ppo saved \(.+\)$"):
            ZooPPO.load(tmp_path / "bad")
    (tmp_path / "bad.zip").write_bytes(whole)  # packed anew by somebody
    assert isinstance(ZooPPO.load(tmp_path / "bad"), ZooPPO)


@pytest.mark.parametrize("bad", [["int8", [1], [300]], ["float32", [1], ["1"]], ["float16", [2], [[1, 2]]]])
def test_an_array_of_other_values_than_its_type_has_is_an_error(bad: Any) -> None:
    with pytest.raises(ValueError, match="expected a value that rlmin wrote"):
        decode({"$array": bad})
