"""A policy that numpy runs alone: it says what torch says, needs nothing else, and refuses what it cannot be.

Numbers are compared in float64; over a thousand steps with resets in float32, which is how policies are exported.
"""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import ACTIONS, BOX, OBSERVATIONS, anything, make
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from rlmin.export import numpy_policy
from rlmin.export.agreement import largest_difference
from rlmin.export.numpy_export import export_numpy, pack_numpy, write_numpy
from rlmin.export.numpy_policy import DESCRIPTION, NumpyPolicy
from rlmin.policy import Policy
from rlmin.policy.predict import predict
from rlmin.vector import adapt, make_vec

T, B = 9, 3


def follow(policy: Policy, runner: NumpyPolicy, *, rows: int = B, masked: bool = False) -> float:
    """The largest difference between the actions of the two over T steps, each going on from its own state."""
    batched, random = batch_space(policy.observation_space, rows), np.random.default_rng(1)
    batched.seed(2)
    states: list[Any] = [None, None]
    worst = 0.0
    for t in range(T):
        start = random.random(rows) < 0.2 if t else np.ones(rows, np.bool_)
        given: dict[str, Any] = {"reward": random.normal(size=rows)}
        if masked:
            given["action_mask"] = random.random((rows, policy.action_head.mask_size)) < 0.5
        seen = batched.sample()
        expected, states[0] = predict(policy, seen, states[0], start, True, **given)
        found, states[1] = runner.predict(seen, states[1], start, True, **given)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        worst = max(worst, float(np.abs(found.astype(np.float64) - expected).max()))
    return worst


# -- it says what torch says ------------------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"conv": 0, "mlp": 0, "layers": 1},
    {"conv": 2, "mlp": 1, "layers": 3},
    {"conv": 0, "share_memory": False},
    {"previous_action": True, "previous_reward": True, "dropout": 0.2},
]
CELLS: list[tuple[str, dict[str, Any]]] = [("gru", {}), ("lstm", {}), ("mlp", {})]
CELLS += [("min_gru", {"candidate": name}) for name in ("tanh", "identity", "g")]
CELLS += [("min_lstm", {"candidate": name}) for name in ("tanh", "g")]
GATES: list[dict[str, Any]] = [{"signed": True}, {"signed": True, "hard_gate": True}, {"forget_floor": 0.5}]
CELLS += [(name, {"encoder_options": gate}) for name in ("min_gru", "min_lstm") for gate in GATES]
CELLS += [("min_gru", {"candidate": "silu"})]


@pytest.mark.parametrize(("encoder", "options"), CELLS)
def test_every_memory_takes_the_same_actions(encoder: str, options: dict[str, Any]) -> None:
    for settings in SETTINGS[:1] if "encoder_options" in options else SETTINGS:
        policy = make(encoder=encoder, dtype=torch.float64, **options, **settings)
        assert follow(policy, NumpyPolicy(pack_numpy(policy))) < 1e-9, settings


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_every_observation_is_read_the_same(kind: str, normalize: bool) -> None:
    policy = make(OBSERVATIONS[kind], dtype=torch.float64, normalize_observation=normalize)
    assert follow(policy, NumpyPolicy(pack_numpy(policy))) < 1e-6  # torch keeps float32 scales of whole numbers


@pytest.mark.parametrize("kind", ACTIONS)
def test_every_action_is_the_same_in_the_environments_own_form(kind: str) -> None:
    policy = make(BOX, ACTIONS[kind], dtype=torch.float64, previous_action=True)
    runner = NumpyPolicy(pack_numpy(policy))
    assert follow(policy, runner) < 1e-6  # a Box is clipped in float32
    assert follow(policy, runner, masked=bool(policy.action_head.mask_size)) < 1e-6


def test_gates_that_are_shut_or_open_without_end_overflow_nowhere() -> None:
    for encoder in ("min_gru", "min_lstm", "gru", "lstm"):
        policy = make(encoder=encoder)
        for parameter in policy.parameters():
            parameter.data *= 60
        assert follow(policy, NumpyPolicy(pack_numpy(policy))) < np.inf  # not nan, and no warning


@pytest.mark.parametrize("encoder", ["min_gru", "min_lstm", "gru", "lstm", "mlp"])
def test_a_thousand_steps_with_resets_agree_within_1e_5(encoder: str) -> None:
    vector = adapt(make_vec("CartPole-v1", 2))
    policy = make(
        vector.observation_space,
        vector.action_space,
        encoder=encoder,
        width=16,
        previous_action=True,
        previous_reward=True,
    )
    found = largest_difference(policy, NumpyPolicy(pack_numpy(policy)), vector, steps=1000)
    assert 0 < found.size < 1e-5


def test_masks_are_obeyed_as_the_policy_obeys_them() -> None:
    policy = make(BOX, ACTIONS["choices"], previous_action=True)
    runner = NumpyPolicy(pack_numpy(policy))
    assert largest_difference(policy, runner, anything(policy, 2, masked=True), steps=100).size < 1e-5


def test_a_memory_that_is_not_wiped_or_a_wrong_weight_is_found() -> None:
    class Clinging(NumpyPolicy):
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return super().run(inputs | {"start": np.zeros_like(inputs["start"])})

    policy = make()
    content, vector = pack_numpy(policy), anything(policy, 2)
    assert largest_difference(policy, NumpyPolicy(content), vector, steps=60).size < 1e-5
    found = largest_difference(policy, Clinging(content), vector, steps=60)
    assert found.size > 1e-3 and found.output == "mean" and found.step > 0
    wrong = NumpyPolicy(content)
    wrong._weights["block1.mixer.weight"][0, 0] = np.nan
    assert not largest_difference(policy, wrong, vector, steps=60).size <= 1e-5


# -- acting -----------------------------------------------------------------------------------------------------------


def test_any_number_of_rows_and_a_single_one_without_its_axis() -> None:
    policy = make(BOX, ACTIONS["choice"], dtype=torch.float64)
    runner = NumpyPolicy(pack_numpy(policy))
    for rows in (*range(1, 11), 2):  # more sizes than buffers are kept for
        assert follow(policy, runner, rows=rows) == 0
    seen = np.linspace(-1, 1, 5)
    many, _ = runner.predict(np.stack([seen, -seen]), deterministic=True)
    one: Any
    one, state = runner.predict(seen, deterministic=True)
    assert isinstance(one, np.int64) and one == many[0]
    again, _ = runner.predict(list(seen), state, episode_start=True, deterministic=True)
    assert again == one
    point = NumpyPolicy(pack_numpy(make()))
    assert point.predict(seen, deterministic=True)[0].shape == (2,)


def test_a_state_is_never_changed_and_can_be_gone_back_to() -> None:
    runner = NumpyPolicy(pack_numpy(make(encoder="lstm", previous_action=True)))
    seen = np.random.default_rng(0).normal(size=(B, 5))
    _, state = runner.predict(seen, deterministic=True)
    first, after = runner.predict(2 * seen, state, deterministic=True)
    runner.predict(-seen, after, np.ones(B), deterministic=True)
    second, _ = runner.predict(2 * seen, state, deterministic=True)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - runner.predict(2 * seen, after, deterministic=True)[0]).max() > 1e-3  # the control


def test_samples_have_the_frequencies_of_the_policy_and_obey_masks() -> None:
    many = 20_000
    policy = make(BOX, ACTIONS["choice"])
    runner = NumpyPolicy(pack_numpy(policy), seed=0)
    seen = np.tile(np.linspace(-1, 1, 5, dtype=np.float32), (many, 1))
    with torch.no_grad():
        out = policy.step({"observation": torch.tensor(seen[:1])}, policy.initial_state(1), torch.tensor([True]))
    expected = torch.exp(out.distribution.log_p[0, 0]).numpy()  # type: ignore[attr-defined]
    found = np.bincount(runner.predict(seen)[0] - 1, minlength=3) / many
    np.testing.assert_allclose(found, expected, atol=5 * (0.25 / many) ** 0.5)
    assert np.abs(found - expected[::-1]).max() > 0.05  # the control
    mask = np.tile([True, False, True], (many, 1))
    allowed = np.bincount(runner.predict(seen, action_mask=mask)[0] - 1, minlength=3) / many
    np.testing.assert_allclose(allowed, [*(expected * [1, 0, 1] / expected[[0, 2]].sum())], atol=0.02)
    nothing = np.bincount(runner.predict(seen, action_mask=~np.ones_like(mask))[0] - 1, minlength=3) / many
    np.testing.assert_allclose(nothing, [1 / 3] * 3, atol=0.02)


def test_samples_of_a_point_have_its_mean_and_deviation_and_a_seed_repeats_them() -> None:
    many, content = 20_000, pack_numpy(make())
    seen = np.zeros((many, 5), np.float32)
    drawn, _ = NumpyPolicy(content, seed=4).predict(seen)
    mean, _ = NumpyPolicy(content).predict(seen[:1], deterministic=True)
    deviation = NumpyPolicy(content)._weights["deviation"]
    np.testing.assert_allclose(drawn.mean(0), mean[0], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.03)
    np.testing.assert_array_equal(drawn, NumpyPolicy(content, seed=4).predict(seen)[0])
    assert (drawn != NumpyPolicy(content, seed=5).predict(seen)[0]).any()


ALONE = """
import json, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "rlmin", "gymnasium", "onnxruntime", "safetensors"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Nothing())
import numpy as np
from numpy_policy import NumpyPolicy

policy, state, actions = NumpyPolicy("policy.npz"), None, []
for t, seen in enumerate(np.load("seen.npy")):
    action, state = policy.predict({"a": seen, "b": t % 3}, state, t in (0, 5), deterministic=True)
    actions.append(action.tolist())
print(json.dumps(actions))
"""


def test_it_needs_numpy_alone(tmp_path: Path) -> None:
    policy = make(spaces.Dict(a=BOX, b=spaces.Discrete(3)))
    export_numpy(policy, tmp_path / "policy.npz", run={"env": "Anything-v0"})
    assert {file.name for file in tmp_path.iterdir()} == {"policy.npz", "numpy_policy.py"}
    seen = np.random.default_rng(0).normal(size=(T, 5)).astype(np.float32)
    np.save(tmp_path / "seen.npy", seen)
    ran = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    state, expected = None, []
    for t in range(T):
        action, state = predict(policy, {"a": seen[t], "b": t % 3}, state, np.array([t in (0, 5)]), True)
        expected.append(action)
    np.testing.assert_allclose(json.loads(ran.stdout), expected, atol=1e-5)
    broken = subprocess.run(
        [sys.executable, "-c", ALONE.replace("numpy as np", "torch")], cwd=tmp_path, capture_output=True
    )
    assert broken.returncode != 0 and b"torch is not here" in broken.stderr  # the control


def test_it_says_what_it_is(tmp_path: Path) -> None:
    policy = make(OBSERVATIONS["choice"], ACTIONS["point"], previous_action=True)
    told = NumpyPolicy(pack_numpy(policy, run={"env": {"id": "A-v0"}})).description
    assert told["run"] == {"env": {"id": "A-v0"}}
    assert told["observation_space"] == {"kind": "Discrete", "n": 4, "start": -2}
    assert set(told["inputs"]) == {"observation", "start", "state", "previous_action"}
    assert set(told["outputs"]) == {"mean", "std", "next_state"}


# -- bad input --------------------------------------------------------------------------------------------------------


def test_observations_that_do_not_fit_are_named() -> None:
    runner = NumpyPolicy(pack_numpy(make(spaces.Dict(a=BOX, b=spaces.Discrete(3)), previous_reward=True)))
    good = {"a": np.zeros((2, 5)), "b": np.zeros(2, np.int64)}
    _, state = runner.predict(good)

    def refused(message: str, error: type[Exception] = ValueError, **change: Any) -> None:
        with pytest.raises(error, match=message):
            runner.predict({**good, **change})

    refused(r"observation 'a': expected \[2, 5\] float32 .* got \[2, 4\] float64", a=np.zeros((2, 4)))
    refused(r"observation 'a': expected .* got \[2, 5\] complex128", a=np.zeros((2, 5), np.complex128))
    refused(r"observation 'b': expected \[2\] int64 .* got \[3\] int64", b=np.zeros(3, np.int64))
    refused(r"observation 'b': expected \[2\] int64 .* got \[2\] float64", b=np.zeros(2))
    refused(r"observation 'b': expected 0..2, got \[0, 3\]", b=np.array([0, 3]))
    refused("observation 'a' holds NaN", FloatingPointError, a=np.full((2, 5), np.nan))
    with pytest.raises(ValueError, match="observation 'b' is missing: dict given"):
        runner.predict({"a": np.zeros(5)})
    with pytest.raises(ValueError, match="expected 3 rows as in the observation, got 2"):
        runner.predict({"a": np.zeros((3, 5)), "b": np.zeros(3, np.int64)}, state)
    with pytest.raises(ValueError, match=r"episode_start: expected \[2\], got \[3\]"):
        runner.predict(good, state, np.zeros(3))
    with pytest.raises(ValueError, match="reads the previous reward; pass reward="):
        runner.predict(good, state)


def test_what_numpy_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    refused: dict[str, dict[str, Any]] = {
        "'attention' has no numpy form; min_gru, .*mlp have one; `rlmin export --onnx`": {
            "encoder": "attention",
            "heads": 2,
        },
        "encoder 'aaren' has no numpy form": {"encoder": "aaren", "heads": 2},
        "tokens='triple' is not supported": {"tokens": "triple", "previous_action": True},
    }
    for message, settings in refused.items():
        with pytest.raises(ValueError, match=message):
            export_numpy(make(**settings), tmp_path / "policy.npz")

    class Own(torch.nn.LayerNorm):
        """Not known, whatever it computes."""

    policy = make()
    stack: Any = policy.trunks[0].encoder
    stack.norm = Own(6)
    with pytest.raises(ValueError, match="expected LayerNorm, found Own"):
        export_numpy(policy, tmp_path / "policy.npz")
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_foreign_file_is_refused_and_nothing_of_it_is_run(tmp_path: Path) -> None:
    content = pack_numpy(make())

    def packed(**arrays: Any) -> bytes:
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def described(**change: Any) -> bytes:
        told = json.dumps(NumpyPolicy(content).description | change).encode()
        return packed(**{DESCRIPTION: np.frombuffer(told, np.uint8)})

    middle, last = len(content) // 2, content.rfind(b"PK\x01\x02")
    for bad in (
        b"",
        b"no",
        content[:middle],
        content[:middle] + bytes(64) + content[middle + 64 :],
        described(program={}),
        described(observation=3),
        content[: last + 10] + b"\x63" + content[last + 11 :],  # a compression that nobody knows
    ):
        with pytest.raises(ValueError, match="damaged"):
            NumpyPolicy(bad)
    with pytest.raises(ValueError, match="damaged"):
        NumpyPolicy(packed(a=np.array([{}], object)))  # a pickle
    with pytest.raises(ValueError, match="not exported by rlmin"):
        NumpyPolicy(packed(a=np.zeros(3)))
    with pytest.raises(ValueError, match="expected an export of format 1, got 2"):
        NumpyPolicy(described(format=2))
    with pytest.raises(ValueError, match="not exported by rlmin: its description is not valid"):
        NumpyPolicy(packed(**{DESCRIPTION: np.frombuffer(b"[]", np.uint8)}))
    (tmp_path / "bad.npz").write_bytes(content[:middle])
    with pytest.raises(ValueError, match=r"bad\.npz: damaged"):
        NumpyPolicy(tmp_path / "bad.npz")


def test_neither_the_file_nor_its_runner_replaces_anything_else(tmp_path: Path) -> None:
    export_numpy(make(), tmp_path / "new" / "folder" / "policy.npz")
    names = [file.name for file in sorted((tmp_path / "new" / "folder").iterdir())]
    assert names == ["numpy_policy.py", "policy.npz"]
    content = (tmp_path / "new" / "folder" / "policy.npz").read_bytes()
    shutil.rmtree(tmp_path / "new")
    with pytest.raises(ValueError, match=r"numpy_policy\.py: is the name of the runner"):
        write_numpy(content, tmp_path / "numpy_policy.py")
    assert not list(tmp_path.iterdir())
    (tmp_path / "numpy_policy.py").write_text("mine = 1\n")
    with pytest.raises(ValueError, match="is not a runner, and one would overwrite it"):
        write_numpy(content, tmp_path / "policy.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["numpy_policy.py"]
    shutil.copy(numpy_policy.__file__, tmp_path / "numpy_policy.py")
    write_numpy(content, tmp_path / "policy.npz")  # an earlier copy is replaced
