"""Policies as ONNX models and torch.export programs: the memory explicit, the numbers those of the policy."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from exporting import ACTIONS, BOX, OBSERVATIONS, POINT, anything, make
from gymnasium import spaces
from large import need
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from rlmin.agents.ppo import PPO
from rlmin.export.agreement import largest_difference
from rlmin.export.onnx import OnnxPolicy, export_onnx, pack_onnx
from rlmin.export.torch_export import DESCRIPTION, StepModule, TorchExportPolicy, export_torch, pack_torch
from rlmin.policy import Policy
from rlmin.vector import adapt, make_vec

onnx, onnxruntime, _ = need("onnx"), need("onnxruntime"), need("onnxscript")
pytestmark = pytest.mark.needs("onnx", "onnxruntime", "onnxscript")

SEEN = spaces.Dict([("speed", BOX), ("gear", spaces.Discrete(4, start=-1)), ("road", OBSERVATIONS["symbols"])])


class Exported(NamedTuple):
    """A policy, and what it was exported to."""

    policy: Policy
    content: bytes


@pytest.fixture(scope="module")
def exported() -> Exported:
    """A model of two memories with every input there is."""
    switches: dict[str, Any] = {"previous_action": True, "previous_reward": True}
    policy = make(SEEN, ACTIONS["choices"], encoder="lstm", layers=1, share_memory=False, **switches)
    return Exported(policy, pack_onnx(policy, value=True, action_mask=True, run={"env": {"id": "Road-v0"}}))


@pytest.fixture(scope="module")
def program() -> Exported:
    policy = make(OBSERVATIONS["choice"], ACTIONS["choices"], layers=1, previous_action=True)
    return Exported(policy, pack_torch(policy, value=True, action_mask=True, run={"env": {"id": "Road-v0"}}))


@pytest.fixture(scope="module")
def lander() -> tuple[PPO, bytes]:
    """An agent of a game, and its model."""
    agent = PPO("CartPole-v1", width=6, layers=1, num_envs=2, horizon=4, seed=0)
    generator = torch.Generator().manual_seed(16)
    for parameter in agent.policy.parameters():
        parameter.data.normal_(std=0.7, generator=generator)
    return agent, pack_onnx(agent.policy)


class Clinging(OnnxPolicy):
    """Never forgets."""

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return super().run(inputs | {"start": np.zeros_like(inputs["start"])})


def test_a_thousand_steps_with_resets_agree_within_1e_5(lander: tuple[PPO, bytes]) -> None:
    agent, content = lander
    found = largest_difference(agent.policy, OnnxPolicy(content), adapt(make_vec("CartPole-v1", 2)), steps=1000)
    assert found.size < 1e-5


def test_masks_choices_and_what_was_before_are_read_as_the_policy_reads_them(
    exported: Exported, program: Exported
) -> None:
    runners = OnnxPolicy(exported.content), TorchExportPolicy(program.content)
    for (policy, _), runner in zip((exported, program), runners, strict=True):
        assert largest_difference(policy, runner, anything(policy, 2, masked=True), steps=100).size < 1e-5


def test_a_memory_that_is_not_wiped_is_found(exported: Exported) -> None:
    vector = anything(exported.policy, 2, masked=True)
    assert largest_difference(exported.policy, Clinging(exported.content), vector, steps=60).size > 1e-3


NAMES = ["observation.speed", "observation.gear", "observation.road", "start", "previous_action", "previous_reward"]
STATE = [f"state.{who}.block0.{part}" for who in ("actor", "critic") for part in ("conv", "h", "c")]


def test_the_model_is_sound_and_says_what_it_is(exported: Exported) -> None:
    model = onnx.load_model_from_string(exported.content)
    onnx.checker.check_model(model, full_check=True)
    assert [x.name for x in model.graph.input] == [*NAMES, "action_mask", *STATE]
    said = ["logits", "action", "next_previous_action", "value"]
    assert [x.name for x in model.graph.output] == [*said, *(f"next_{name}" for name in STATE)]
    for x in (*model.graph.input, *model.graph.output):
        assert x.type.tensor_type.shape.dim[0].dim_param == "batch"
    told = json.loads({entry.key: entry.value for entry in model.metadata_props}["rlmin"])
    assert told["run"] == {"env": {"id": "Road-v0"}}
    assert told["inputs"]["state.critic.block0.conv"] == {"shape": [3, 6], "dtype": "float32"}
    assert told["observation_space"]["parts"]["gear"] == {"kind": "Discrete", "n": 4, "start": -1}


def test_what_has_a_next_is_carried_and_nothing_else_need_be_known(lander: tuple[PPO, bytes]) -> None:
    """Greedy play as any program would do it, with onnxruntime and the rule of names alone."""
    agent, content = lander
    session = onnxruntime.InferenceSession(content)
    names = [output.name for output in session.get_outputs()]
    carried = {
        x.name: np.zeros((1, *x.shape[1:]), np.float32) for x in session.get_inputs() if f"next_{x.name}" in names
    }
    assert set(carried) == {"state.block0.conv", "state.block0.h"}
    env, other = gym.make("CartPole-v1"), gym.make("CartPole-v1")
    state: Any = None
    lengths = [0, 0]
    for episode in range(4):
        seed = {"seed": 5} if not episode else {}
        (seen, _), (same, _) = env.reset(**seed), other.reset(**seed)  # type: ignore[arg-type]
        start, over = True, False
        while not over:
            given = {"observation": seen[None], "start": np.array([start]), **carried}
            said = dict(zip(names, session.run(None, given), strict=True))
            action, state = agent.predict(same, state, np.array([start]), deterministic=True)
            assert said["action"].shape == (1,) and said["action"][0] == action
            carried = {name: said[f"next_{name}"] for name in carried}
            seen, _, over, _, _ = env.step(int(said["action"][0]))
            same = other.step(action)[0]
            start, lengths[0] = False, lengths[0] + 1
            np.testing.assert_array_equal(seen, same)


def test_stable_baselines3_evaluates_it_as_the_agent(lander: tuple[PPO, bytes], tmp_path: Path) -> None:
    agent, content = lander

    def returns(model: Any) -> list[float]:
        env = Monitor(gym.make("CartPole-v1"))
        env.reset(seed=3)
        found: Any = evaluate_policy(model, env, n_eval_episodes=6, return_episode_rewards=True)
        return list(found[0])

    assert returns(OnnxPolicy(content)) == returns(agent)
    assert returns(Clinging(content)) != returns(agent)  # the control
    (tmp_path / "a.onnx").write_bytes(content)
    assert returns(OnnxPolicy(str(tmp_path / "a.onnx"))) == returns(agent)


def test_the_program_says_what_the_module_says_that_it_was_made_of(program: Exported) -> None:
    module, extra = StepModule(program.policy, value=True, action_mask=True), {DESCRIPTION: ""}
    loaded = torch.export.load(io.BytesIO(program.content), extra_files=extra)
    assert json.loads(extra[DESCRIPTION]) == module.description({"env": {"id": "Road-v0"}})
    inputs = module.example(4)
    with torch.no_grad():
        expected, found = module(inputs), loaded.module()(inputs)
    assert list(found) == list(expected) == list(module.description()["outputs"])
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-6)
    archive = zipfile.ZipFile(io.BytesIO(program.content))
    assert not any(archive.read(name)[:2] in (b"PK", b"\x80\x02") for name in archive.namelist())  # no pickle in it


FORMS = [
    {"encoder": "min_gru", "value": True},
    {"encoder": "min_lstm", "action": ACTIONS["bits"], "previous_action": True, "action_mask": True},
    {"encoder": "gru", "observation": OBSERVATIONS["several"], "conv": 0},
    {"encoder": "attention", "heads": 2, "context": 5, "action": ACTIONS["point"], "previous_action": True},
    {"encoder": "aaren", "heads": 2, "share_memory": False, "value": True},
    {"encoder": "mlp", "observation": OBSERVATIONS["grey picture"]},
    {"encoder": "min_gru", "tokens": "triple", "previous_action": True, "action": ACTIONS["choice"]},
    {"encoder": "min_gru", "observation": OBSERVATIONS["choices"], "normalize_observation": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", FORMS, ids=lambda x: "-".join(map(str, [x["encoder"], *list(x)[1:]])))
def test_every_memory_input_and_action_can_be_exported(settings: dict[str, Any]) -> None:
    settings = dict(settings)
    options = {name: settings.pop(name, False) for name in ("value", "action_mask")}
    policy = make(layers=1, **settings)
    for runner in (OnnxPolicy(pack_onnx(policy, **options)), TorchExportPolicy(pack_torch(policy, **options))):
        vector = anything(policy, 3, masked=options["action_mask"])
        assert largest_difference(policy, runner, vector, steps=300).size < 1e-5


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_damaged_or_foreign_file_is_refused(exported: Exported) -> None:
    for bad in (b"", b"no", exported.content[: len(exported.content) // 2]):
        with pytest.raises(ValueError, match="damaged, expected an ONNX model"):
            OnnxPolicy(bad)
    with pytest.raises(ValueError, match=r"damaged, expected a \.pt2 file"):
        TorchExportPolicy(b"no")
    model = onnx.load_model_from_string(exported.content)
    del model.metadata_props[:]
    with pytest.raises(ValueError, match="not exported by rlmin"):
        OnnxPolicy(model.SerializeToString())
    file = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 3), (torch.zeros(4, 2),)), file)
    with pytest.raises(ValueError, match="not exported by rlmin"):
        TorchExportPolicy(file.getvalue())


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf'{name} is not installed; .*"rlmin\[export\]"'):
                export_onnx(make(), tmp_path / "a.onnx")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r"onnxruntime is not installed"):
            OnnxPolicy(b"")
    with pytest.raises(ValueError, match=r"action_mask=True needs choices to forbid, the action space is Box"):
        export_torch(make(BOX, POINT), tmp_path / "a.pt2", action_mask=True)
    assert not list(tmp_path.iterdir())
