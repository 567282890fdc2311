"""`rlmin export`: a run becomes files for other programs, none of which may say anything else than the run."""

import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from exporting import ACTIONS, Anything
from gymnasium import spaces

from rlmin import PPO, DecisionAgent, load
from rlmin.cli import main
from rlmin.commands.export import Export, run_export
from rlmin.data import Episode
from rlmin.export.numpy_policy import NumpyPolicy
from rlmin.export.onnx import OnnxPolicy
from rlmin.export.torch_export import TorchExportPolicy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tmaze"
    PPO("rlmin/TMaze-v0", env_kwargs={"length": 3}, width=6, num_envs=2, horizon=4, seed=0).save(folder)
    return folder


def test_a_run_becomes_a_file_that_plays_its_environment(run: Path, tmp_path: Path, capsys: Any) -> None:
    main(["export", str(run), "--numpy", str(tmp_path / "new" / "maze.npz"), "--check", "40"])
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'new' / 'maze.npz'}: ") and "in 40 steps of rlmin/TMaze-v0 length=3" in said
    policy = NumpyPolicy(tmp_path / "new" / "maze.npz")
    assert policy.description["run"]["env"]["id"] == "rlmin/TMaze-v0"
    env = gym.make("rlmin/TMaze-v0", length=3)
    seen, _ = env.reset(seed=0)
    expected, _ = load(run).predict(seen, deterministic=True)
    assert policy.predict(seen, deterministic=True)[0] == expected


def test_a_file_that_does_not_agree_is_not_left(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.npz").write_bytes(b"what was there")
    with pytest.raises(ValueError, match=r"a\.npz: not written, it differs .* expected at most 1e-12"):
        run_export(Export(run=run, numpy=tmp_path / "a.npz", check=30, tolerance=1e-12))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"what was there"


def test_bad_input_is_told_in_one_line(run: Path, tmp_path: Path, capsys: Any) -> None:
    def told(*arguments: object) -> str:
        with pytest.raises(SystemExit, match="2"):
            main(["export", *map(str, arguments)])
        said: str = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    file = tmp_path / "a.npz"
    assert "name a file to write: --onnx FILE, --torch FILE or --numpy FILE" in told(run)
    assert "no such run folder" in told(tmp_path / "none", "--numpy", file)
    assert "check: expected a whole number of at least 0, got -1" in told(run, "--numpy", file, "--check", -1)
    assert "did you mean" in told(run, "--numpy", file, "--env", "rlmin/TMazes-v0")
    assert "observation" in told(run, "--numpy", file, "--env", "CartPole-v1")
    assert "ends in .npz" in told(run, "--numpy", tmp_path / "numpy_policy.py")
    assert "ends in .onnx" in told(run, "--onnx", file)
    assert "ends in .pt2" in told(run, "--torch", tmp_path / "a.pt")
    (tmp_path / "b.npz").mkdir()
    assert "expected a file, this is a folder" in told(run, "--numpy", tmp_path / "b.npz")
    (tmp_path / "c").write_text("no folder")
    assert "c is a file, not a folder" in told(run, "--numpy", tmp_path / "c" / "d" / "a.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "c"]


def test_of_several_forms_all_are_written_or_none(run: Path, tmp_path: Path) -> None:
    PPO("rlmin/TMaze-v0", width=6, encoder="attention", heads=2, num_envs=2, horizon=4).save(tmp_path / "attention")
    out = tmp_path / "out"
    files: dict[str, Any] = {"torch": out / "a.pt2", "numpy": out / "a.npz"}
    with pytest.raises(ValueError, match=r"^export to numpy: .*`rlmin export --onnx` can do it"):
        run_export(Export(run=tmp_path / "attention", check=2, **files))
    assert not out.exists()
    out.mkdir()
    (out / "numpy_policy.py").write_text("mine = 1")
    with pytest.raises(ValueError, match="is not a runner, and one would overwrite it"):
        run_export(Export(run=run, check=2, **files))
    assert [path.name for path in out.iterdir()] == ["numpy_policy.py"]
    (out / "numpy_policy.py").unlink()
    assert run_export(Export(run=run, check=2, **files)).count("largest difference") == 2
    assert {path.name for path in out.iterdir()} == {"a.pt2", "a.npz", "numpy_policy.py"}


class Broken(Anything):
    """Fails at its fourth step."""

    steps = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(spaces.Box(-1, 1, (3,)), ACTIONS["choice"])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == 4:
            raise RuntimeError("out of order")
        return super().step(action)


def test_only_what_the_environment_raises_bears_its_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gym.registry, "Broken-v0", gym.envs.registration.EnvSpec("Broken-v0", entry_point=Broken))
    PPO("Broken-v0", width=6, num_envs=2, horizon=4).save(tmp_path / "broken")
    with pytest.raises(ValueError, match=r"^Broken-v0: .*out of order"):
        run_export(Export(run=tmp_path / "broken", numpy=tmp_path / "a.npz"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^onnx is not installed"):
        run_export(Export(run=run, onnx=tmp_path / "a.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_policy_without_its_environment_is_exported_unchecked_if_asked(tmp_path: Path) -> None:
    wrappers = [gym.wrappers.FlattenObservation]  # with which the environment is no longer that of its id
    agent = PPO(gym.make_vec("CartPole-v1", 2, "sync", wrappers=wrappers), width=6, horizon=4)
    agent.save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"name one with --env, or .* --check 0"):
        run_export(Export(run=tmp_path / "run", numpy=tmp_path / "a.npz"))
    assert "not checked" in run_export(Export(run=tmp_path / "run", numpy=tmp_path / "a.npz", check=0))
    assert "in 5 steps of" in run_export(
        Export(run=tmp_path / "run", numpy=tmp_path / "a.npz", check=5, env="CartPole-v1")
    )


def test_a_decision_agent_is_asked_for_returns_and_says_in_which_unit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=random.normal(size=(8, 4)).astype(np.float32),
            actions=random.integers(2, size=7),
            rewards=np.ones(7),
            terminated=True,
        )
        for _ in range(12)
    ]
    agent = DecisionAgent(episodes, env="CartPole-v1", width=6, return_scale=5.0, rows=2, horizon=6, seed=0)
    agent.save(tmp_path / "run")
    file = tmp_path / "student.npz"
    for target in (7.0, 700.0):  # the second one beyond the data
        run_export(Export(run=tmp_path / "run", numpy=file, check=50, target_return=target))
    policy = NumpyPolicy(file)
    assert policy.description["run"]["return_scale"] == 5
    assert {leaf["name"] for leaf in policy.description["observation"]} >= {"return_to_go"}


class Masked(Anything):
    """Some choices are forbidden."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(spaces.Box(-1, 1, (3,)), ACTIONS["choice"], masked=3)


@pytest.mark.slow
@pytest.mark.needs("onnx", "onnxruntime", "onnxscript")
def test_all_forms_of_a_run_whose_environment_forbids_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(gym.registry, "Masked-v0", gym.envs.registration.EnvSpec("Masked-v0", entry_point=Masked))
    PPO("Masked-v0", width=6, num_envs=2, horizon=4, seed=0, previous_action=True).save(tmp_path / "run")
    files = [tmp_path / name for name in ("a.onnx", "a.pt2", "a.npz")]
    flags = [x for option, file in zip(("--onnx", "--torch", "--numpy"), files, strict=True) for x in (option, file)]
    main(["export", *map(str, [tmp_path / "run", *flags, "--check", 100, "--value", True])])
    assert capsys.readouterr().out.count("largest difference from torch") == 3
    onnx = importlib.import_module("onnx")
    onnx.checker.check_model(onnx.load(files[0]), full_check=True)
    runners = OnnxPolicy(files[0]), TorchExportPolicy(files[1]), NumpyPolicy(files[2])
    assert ["action_mask" in runner.description["inputs"] for runner in runners] == [True, True, False]
    seen, mask = np.zeros((4, 3), np.float32), np.eye(3, dtype=np.bool_)[[0, 1, 2, 1]]
    for runner in runners:
        action, _ = runner.predict(seen, action_mask=mask)
        np.testing.assert_array_equal(action, [1, 2, 3, 2])
