"""What comes in a file runs no code: each test brings a module that would leave a mark, and a file that names it.

Every way in has an arm in which the user says so, `trust=True` or `--trust`: there the module does run, so the files of
these tests are what they claim to be.
"""

import ast
import contextlib
import gc
import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from tensordict import NonTensorData, TensorDict

from rlmin import PPO, DecisionAgent, load, make_vec
from rlmin.cli import main
from rlmin.commands.train import read_preset
from rlmin.data import Episode, load_dataset
from rlmin.files.trust import Foreign, from_file
from rlmin.interop.model_card import card, write_card
from rlmin.runs.checkpoint import LEARNER, read, read_header, read_newest
from rlmin.suite import SuiteOptions, run_suite
from rlmin.suite.defaults import DefaultOptions, run_defaults
from rlmin.suite.offline import OfflineOptions, run_offline
from rlmin.vector.make import import_provider

SMALL: dict[str, Any] = {"width": 8, "layers": 1, "horizon": 8, "num_envs": 2, "minibatches": 1, "epochs": 1}
ID = "intruder:CartPole-v1"
MINARI = ("algorithm_name", "author", "author_email", "code_permalink", "description")


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once the module `intruder`, which can be imported, has run."""
    mark, installed = tmp_path / "mark", tmp_path / "installed"
    installed.mkdir()
    code = f"import pathlib\nimport gymnasium.envs.classic_control\npathlib.Path({str(mark)!r}).write_text('ran')\n"
    code += "class Env(gymnasium.envs.classic_control.CartPoleEnv): pass\ndef wrap(env): return env\n"
    (installed / "intruder.py").write_text(code)
    (tmp_path / "here").mkdir()
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("MINARI_REMOTE", "none://nowhere")
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    yield mark
    for module in ("intruder", "lamp", "stranger"):
        sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "ppo"
    agent = PPO("CartPole-v1", **SMALL)
    agent.env_spec = {"id": ID, "kwargs": {}, "workers": 0}  # as one who wishes ill would write it
    agent.learn(16).save(folder)
    return folder


@pytest.fixture
def run(clean: Path) -> Path:
    return Path(shutil.copytree(clean, Path.cwd() / "stranger"))


def episodes() -> list[Episode]:
    stream = np.random.default_rng(0)
    return [Episode(stream.normal(size=(6, 4)).astype(np.float32), np.arange(5) % 2, np.ones(5), True) for _ in "ab"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    return said


COMMANDS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "stranger", "--episodes", "2"],
    "inspect": ["inspect", "stranger", "--episodes", "2", "--shown", "1"],
    "export": ["export", "stranger", "--numpy", "out.npz", "--check", "4"],
    "collect": ["collect", "stranger", "--dataset", "some/one-v0", "--episodes", "2"],
    "resume": ["train", "--resume", "stranger", "--total-timesteps", "32"],
    "card": ["hub", "card", "stranger", "--episodes", "2"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_nothing_that_a_run_names(
    name: str, run: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.iterdir()}
    said = refused(COMMANDS[name], capsys)
    assert "'intruder'" in said and "--trust" in said and f"--env {ID}" in said
    assert not mark.exists() and "intruder" not in sys.modules
    assert {path: path.read_bytes() for path in run.iterdir()} == before, "and it writes nothing"


@pytest.mark.parametrize("name", COMMANDS)
def test_with_the_users_word_it_runs(name: str, run: Path, mark: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses metadata of a published dataset
        main([*COMMANDS[name], "--trust"])
    assert mark.exists()


@pytest.mark.parametrize("name", ["evaluate", "export", "collect", "resume"])
def test_a_typed_id_is_the_users_word(name: str, run: Path, mark: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main([*COMMANDS[name], f"--env={ID}"])
    assert mark.exists()


def test_a_run_goes_on_in_no_other_environment(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*COMMANDS["resume"], "--env", "Acrobot-v1"], capsys)
    assert "a run is resumed in its own environment" in said and ID in said


@pytest.mark.parametrize("use", ["vector", "get_env", "learn", "resume", "card", "learner"])
def test_a_loaded_agent_imports_nothing_that_its_folder_names(use: str, run: Path, mark: Path) -> None:
    agent = load(run)
    assert agent.predict(np.zeros(4, np.float32))[0].shape == (), "it acts without its environment"
    uses: dict[str, Any] = {
        "vector": lambda: agent.vector,
        "get_env": agent.get_env,
        "learn": lambda: agent.learn(16),
        "resume": lambda: agent.resume(run),
        "card": lambda: write_card(run, episodes=2),
        "learner": lambda: make_vec(agent.env_spec["id"], 1),
    }
    with pytest.raises(ValueError, match="'intruder'"):
        uses[use]()
    assert not mark.exists()
    if use in ("vector", "get_env"):
        assert load(run, trust=True).get_env() is not None and mark.exists()


def test_what_is_imported_already_may_be_named(run: Path) -> None:
    import_provider(ID)  # as the user's own import would
    assert load(run).get_env() is not None


def test_a_saved_copy_of_a_strangers_run_is_no_better(run: Path, mark: Path) -> None:
    load(run).save("copy")
    load("copy").save("again")
    with pytest.raises(ValueError, match="'intruder'"):
        load("again").get_env()
    assert not mark.exists()


def test_a_header_marks_the_ids_in_it_wherever_it_is_read(run: Path) -> None:
    for found in (read_header(run), read(run, LEARNER)[0], read_newest(run)[0]):
        assert type(found["env"]["id"]) is Foreign


@pytest.mark.parametrize("id", ["runs.stranger:CartPole-v1", "stranger.evil:CartPole-v1"])
def test_a_module_beside_the_weights_is_never_imported(id: str, run: Path, mark: Path) -> None:
    """As in a folder that was downloaded, with the working folder on the path as `python -m rlmin` has it."""
    (run / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).write_text('ran')\n")
    agent = load(run)
    agent.env_spec["id"] = id
    agent.save(run)
    sys.path.insert(0, str(Path.cwd()))
    try:
        with pytest.raises(ValueError, match="comes from a file"):
            load(run).get_env()
    finally:
        sys.path.remove(str(Path.cwd()))
    assert not mark.exists()


def test_a_known_package_is_imported_where_it_is_installed_not_from_the_working_folder(
    run: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = load(run)
    agent.env_spec["id"] = "popgym-RepeatFirstEasy-v0"
    agent.save(run)
    for name in [name for name in sys.modules if name.partition(".")[0] == "popgym"]:
        monkeypatch.delitem(sys.modules, name)
    Path("popgym.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).write_text('ran')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with pytest.raises(ValueError, match="'popgym'"):
        load(run).get_env()
    assert not mark.exists()
    Path("popgym.py").unlink()
    assert import_provider(Foreign("minigrid:MiniGrid-Empty-5x5-v0")) == "MiniGrid-Empty-5x5-v0", "where it is none"


@pytest.mark.parametrize("id", ["a'); import os #:X-v0", "x\n```:X-v0", "", 3, None, "y" * 300])
def test_what_is_no_id_is_refused(id: Any) -> None:
    with pytest.raises(ValueError, match="expected an environment id"):
        from_file(id, where="here")


# datasets


CREATES = pytest.mark.needs("jax")  # as Minari does where it writes datasets


def minari_dataset(id: str, **told: Any) -> Path:
    """A Minari dataset whose metadata were changed afterwards."""
    import minari
    from minari import DataCollector

    collector = DataCollector(gym.make("CartPole-v1"))
    for seed in range(2):
        collector.reset(seed=seed)
        for step in range(40):
            _, _, terminated, _, _ = collector.step(step % 2)
            if terminated:
                break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector.create_dataset(dataset_id=id, **dict.fromkeys(MINARI, "nobody"))
        collector.close()
        del collector
        gc.collect()
    file = Path(minari.storage.datasets_root_dir.get_dataset_path()) / id / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    spec = json.loads(metadata["env_spec"])
    spec |= told.pop("spec", {})
    metadata |= {"env_spec": json.dumps(spec), **told}
    file.write_text(json.dumps({key: x for key, x in metadata.items() if x is not None}))
    return file


WRAPPER = {"name": "Wrapped", "entry_point": "intruder:wrap", "kwargs": {}}
FORGED: dict[str, dict[str, Any]] = {
    "id": {"spec": {"id": ID}},
    "entry point": {"spec": {"entry_point": "intruder:Env"}},
    "vector entry point": {"spec": {"vector_entry_point": "intruder:Env"}},
    "wrapper": {"spec": {"additional_wrappers": [WRAPPER]}},
    "recipe": {"spec": {"id": "Unknown-v7"}, "recipe": {"env": ID}},
}


@CREATES
@pytest.mark.parametrize("name", FORGED)
def test_a_dataset_imports_nothing_that_its_metadata_name(name: str, mark: Path) -> None:
    minari_dataset("some/where-v0", **FORGED[name])
    agent = DecisionAgent("some/where-v0", width=8, layers=1, rows=2, horizon=8)
    if agent.env_spec["id"] == ID:
        with pytest.raises(ValueError, match="'intruder'"):
            agent.get_env()
    else:
        agent.get_env()
    agent.learn(16)
    assert not mark.exists()
    if name in ("id", "recipe"):
        assert DecisionAgent("some/where-v0", width=8, trust=True).get_env() is not None and mark.exists()


@CREATES
@pytest.mark.parametrize("forged", ["id", "entry point", "wrapper"])
@pytest.mark.parametrize("lacking", ["observation_space", "action_space"])
def test_minari_makes_no_environment_to_know_its_spaces(forged: str, lacking: str, mark: Path) -> None:
    minari_dataset("some/where-v0", **{lacking: None}, **FORGED[forged])
    with pytest.raises(ValueError, match=f"no {lacking}.*--trust"):
        load_dataset("some/where-v0")
    assert not mark.exists()
    load_dataset("some/where-v0", trust=True)
    assert mark.exists()


@CREATES
@pytest.mark.parametrize(
    "command",
    [["inspect", "some/where-v0"], ["train", "--dataset", "some/where-v0", "--width", "8", "--total-timesteps", "20"]],
)
def test_commands_on_a_dataset_import_nothing(
    command: list[str], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minari_dataset("some/where-v0", observation_space=None, **FORGED["entry point"])
    assert "--trust" in refused(command, capsys)
    assert not mark.exists()
    main([*command, "--trust"])
    assert mark.exists()


@CREATES
def test_training_on_a_dataset_says_what_it_did_not_evaluate_in(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minari_dataset("some/where-v0", **FORGED["recipe"])
    main(["train", "--dataset", "some/where-v0", "--width", "8", "--total-timesteps", "20"])
    assert "not evaluated: environment 'intruder:CartPole-v1'" in capsys.readouterr().out
    assert not mark.exists()


def test_a_run_on_data_imports_nothing_for_the_spaces_of_its_data(run: Path, mark: Path) -> None:
    agent = DecisionAgent(episodes(), width=8, layers=1)
    agent.source |= {"source": "data.hdf5", "env": {"id": ID, "kwargs": {}}}
    agent.save("decision")
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((9, 4), np.float32), np.arange(9) % 2
        file["rewards"], file["terminals"], file["timeouts"] = np.ones(9), np.arange(9) == 8, np.zeros(9, bool)
    with pytest.raises(ValueError, match="'intruder'"):
        load("decision").ready()
    assert not mark.exists()
    with pytest.raises(ValueError, match=r"these are not|this run's had"):
        load("decision", trust=True).ready()
    assert mark.exists()


@CREATES
def test_a_pickle_in_the_cache_is_not_read(tmp_path: Path, mark: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (mark, "ran")

    minari_dataset("some/where-v0")
    load_dataset("some/where-v0", cache=tmp_path / "cache")
    folder = next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    TensorDict({"bad": NonTensorData(Bomb())}).memmap(tmp_path / "bad")  # as tensordict itself keeps an object
    shutil.copytree(tmp_path / "bad" / "bad", folder / "step" / "bad")
    meta = json.loads((folder / "step" / "meta.json").read_text())
    meta["bad"] = json.loads((tmp_path / "bad" / "meta.json").read_text())["bad"]
    (folder / "step" / "meta.json").write_text(json.dumps(meta))
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")  # the arm that must fail: tensordict reads it
        TensorDict.load_memmap(folder / "step")
    assert mark.exists()
    mark.unlink()
    told = json.loads((folder / "dataset.json").read_text())
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "dataset.json")
    told["files"] = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / "dataset.json").write_text(json.dumps(told))
    assert load_dataset("some/where-v0", cache=tmp_path / "cache").num_episodes == 2
    assert not mark.exists()


# presets and suites


def test_a_preset_imports_nothing(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"env": ID, "total_timesteps": 16, "eval_episodes": 0, **SMALL}))
    assert f"--env {ID}" in refused(["train", "mine.yaml"], capsys)
    with pytest.raises(ValueError, match="'intruder'"):
        PPO(read_preset("mine.yaml")["env"])
    assert not mark.exists()
    main(["train", "mine.yaml", "--trust"])
    assert mark.exists()


def test_a_preset_cannot_trust_itself(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"env": ID, "trust": True}))
    assert "no setting 'trust'" in refused(["train", "mine.yaml"], capsys)
    assert not mark.exists()


INJECTED: list[dict[str, Any]] = [
    {"pictures": ["--trust"]},
    {"env_kwargs": ["--trust"]},
    {"env_kwargs": {"--trust": True}},
    {"pictures": ["x", "--trust", "--numbers"]},
    {"device": "--trust"},
    {"width": "--help"},
    {"device": "-h"},
]


@pytest.mark.parametrize("injected", INJECTED, ids=str)
def test_a_value_of_a_file_is_no_option(
    injected: dict[str, Any], mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"env": ID, "total_timesteps": 16} | SMALL | injected))
    assert "expected a value, got '-" in refused(["train", "mine.yaml"], capsys)
    settings = SMALL | injected
    said = {"steps": 16, "seeds": 1, "encoders": ["min_gru"], "settings": settings, "tasks": {"a": {"env": ID}}}
    Path("suite.yaml").write_text(yaml.safe_dump(said))
    assert refused(["bench", "memory", "--suite", "suite.yaml", "--jobs", "1"], capsys)
    assert not mark.exists()


def test_a_preset_with_the_users_own_env_imports_that(mark: Path) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"env": "Pendulum-v1", "total_timesteps": 16, **SMALL}))
    main(["train", "mine.yaml", "--env", ID, "--eval-episodes", "0"])
    assert mark.exists()


@pytest.mark.parametrize("where", ["task", "env", "settings"])
def test_a_suite_imports_nothing(where: str, mark: Path) -> None:
    each: dict[str, Any] = {"task": {ID: {}}, "env": {"a": {"env": ID}}, "settings": {"a": {}}}
    settings = SMALL | ({"env": ID} if where == "settings" else {})
    said = {"steps": 16, "seeds": 1, "encoders": ["min_gru"], "settings": settings, "tasks": each[where]}
    Path("suite.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match="'intruder'"):
        run_suite(SuiteOptions(suite="suite.yaml"))
    assert not mark.exists()


@CREATES
def test_a_suite_of_logged_data_imports_nothing(mark: Path) -> None:
    said: dict[str, Any] = {"agents": {"a": {}}, "tasks": {"rlmin/x-random-v0": {}}}
    Path("suite.yaml").write_text(yaml.safe_dump(said | {"recipes": {"x": {"env": ID, "episodes": 2}}}))
    with pytest.raises(ValueError, match="'intruder'"):
        run_offline(OfflineOptions(suite="suite.yaml", make=True))
    minari_dataset("rlmin/x-random-v0")
    Path("suite.yaml").write_text(yaml.safe_dump(said | {"settings": {"env": ID}}))
    with pytest.raises(ValueError, match="'intruder'"):
        run_offline(OfflineOptions(suite="suite.yaml"))
    assert not mark.exists()


@pytest.mark.parametrize("where", ["task", "env"])
def test_a_suite_of_defaults_imports_nothing(where: str, mark: Path) -> None:
    scores = {"floor": 0, "ceiling": 500}
    tasks: dict[str, Any] = {"task": {ID: scores}, "env": {"a": {"env": ID, **scores}}}
    said = {"steps": 16, "seeds": 1, "columns": {"mlp": {"encoder": "mlp"}}, "tasks": tasks[where]}
    Path("suite.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match="'intruder'"):
        run_defaults(DefaultOptions(suite="suite.yaml"))
    assert not mark.exists()
    run_defaults(DefaultOptions(suite="suite.yaml", trust=True))
    assert mark.exists()


# the page


def test_the_page_names_tests_that_there_are() -> None:
    root = Path(__file__).parent
    page = (root.parent / "docs" / "safety.md").read_text()
    tests = "".join(path.read_text() for path in root.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 8 and [name for name in named if f"def {name}(" not in tests] == []
    assert all((root / file).exists() for file in re.findall(r"`(test_\w+\.py)`", page))


# text into code


@pytest.mark.parametrize(
    "kwargs",
    [
        {"x=1)); import intruder #": 1},
        {"x": "'); import intruder #"},
        {"x": "\n```\n```python\nimport intruder\n```"},
        {"class": 1, "y\n```python\nimport intruder\n": 2},
    ],
)
def test_a_model_card_quotes_what_a_run_says(kwargs: dict[str, Any], run: Path, mark: Path) -> None:
    agent = load(run)
    agent.env_spec |= {"id": from_file("Some-v0", where="x"), "kwargs": kwargs}
    text = card(agent, run, {})
    blocks = [part.partition("\n```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 1, "its own block and no other"
    called: dict[str, Any] = {}

    class Library:
        @staticmethod
        def make_vec(*given: Any, **named: Any) -> None:
            called.update(given=given, named=named)
            raise InterruptedError

        load = staticmethod(load)

    code = blocks[0].replace("import rlmin\n", "").replace('rlmin.load(".")', f"rlmin.load({str(run)!r})")
    with pytest.raises(InterruptedError):
        exec(code, {"rlmin": Library})
    assert called == {"given": ("Some-v0", 1), "named": kwargs} and not mark.exists()


def test_a_model_card_quotes_an_id_whatever_it_holds(run: Path) -> None:
    """An id from a file holds no quote; one that was set in Python may."""
    agent = load(run)
    for id in ("x'); import intruder #", 'x"); import intruder #', "x\n```\nimport intruder"):
        agent.env_spec = {**agent.env_spec, "id": id}
        code = card(agent, run, {}).split("python\n")[1].partition("\n```")[0]
        assert id in [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
        assert not any(
            isinstance(node, ast.Import) and node.names[0].name != "rlmin" for node in ast.walk(ast.parse(code))
        )


# a typed id finds the user's own module


LAMP = """
import gymnasium as gym
class Lamp(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5
        return self.observation_space.sample() * 0, {}
    def step(self, action):
        self.left -= 1
        return self.observation_space.sample() * 0, float(action), self.left == 0, False, {}
gym.register("Lamp-v0", Lamp)
"""


@pytest.fixture
def lamp() -> Iterator[None]:
    Path("lamp.py").write_text(LAMP)
    yield
    gym.registry.pop("Lamp-v0", None)


def test_a_typed_id_is_found_in_the_working_folder_and_data_are_not(
    lamp: None, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for key, x in SMALL.items() for word in ("--" + key.replace("_", "-"), str(x))]
    small += ["--total-timesteps", "16", "--eval-episodes", "2"]
    path = list(sys.path)
    main(["train", "--env", "lamp:Lamp-v0", *small, "--folder", "run"])
    assert sys.path == path and load("run").env_spec["id"] == "lamp:Lamp-v0"
    sys.modules.pop("lamp")
    gym.registry.pop("Lamp-v0")
    assert "--env lamp:Lamp-v0" in refused(["evaluate", "run", "--episodes", "2"], capsys)
    assert "PYTHONPATH=." in refused(["evaluate", "run", "--episodes", "2", "--trust"], capsys)
    main(["train", "--resume", "run", "--env", "lamp:Lamp-v0", "--total-timesteps", "32"])
    main(["evaluate", "run", "--episodes", "2"])


def test_a_module_that_fails_is_one_line(lamp: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lamp.py").write_text("def broken(:\n")
    assert "importing 'lamp' failed (SyntaxError" in refused(["train", "--env", "lamp:Lamp-v0"], capsys)
    Path("lamp.py").write_text("raise RuntimeError('no light')\n")
    assert "importing 'lamp' failed (RuntimeError: no light)" in refused(["train", "--env", "lamp:Lamp-v0"], capsys)
    Path("lamp.py").write_text("import sys\nsys.exit(0)\n")
    assert "importing 'lamp' failed (SystemExit: 0)" in refused(["train", "--env", "lamp:Lamp-v0"], capsys)
    Path("lamp.py").write_text("import nothing_of_that_name\n")
    said = refused(["train", "--env", "lamp:Lamp-v0"], capsys)
    assert "No module named 'nothing_of_that_name'" in said and "PYTHONPATH" not in said
