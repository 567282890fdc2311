"""A checkpoint of a stranger: whatever it says, one clear error in bounded time and memory, or what was saved."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forking import fork
from safetensors import safe_open
from torch import Tensor

from rlmin import PPO, DecisionAgent, load
from rlmin.cli import main
from rlmin.data import Episode
from rlmin.encoders import MIXERS
from rlmin.runs.checkpoint import LEARNER, POLICY, _pack, read

SMALL: dict[str, Any] = {"width": 8, "horizon": 8, "num_envs": 4, "minibatches": 2, "epochs": 1}
MIB = 2**20

Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, normalize_observation=True, **SMALL).learn(64).save(folder)
    return folder


@pytest.fixture(scope="module")
def cloner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloner")
    rng = np.random.default_rng(0)
    episodes = [Episode(rng.normal(size=(9, 3)).astype("f4"), [0, 1] * 4, [1.0] * 8, True) for _ in range(6)]
    DecisionAgent(episodes, width=8, rows=2, horizon=8, encoder="attention", heads=2, context=4).learn(64).save(folder)
    return folder


def forge(source: Path, folder: Path, change: Change, *, only_policy: bool = False) -> Path:
    """A run as `source` with other content and right digests."""
    shutil.copytree(source, folder)
    for file in (POLICY, LEARNER):
        with safe_open(folder / file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        header = json.loads(metadata["header"])
        change(header, tensors)
        text = header["text"] if "text" in header else json.dumps(header)
        (folder / file).write_bytes(_pack(tensors, text, int(metadata["saved"])))
    if only_policy:
        (folder / LEARNER).unlink()
    return folder


def at(path: str, value: Any) -> Change:
    """Put a value into the header."""
    *way, last = path.split(".")

    def change(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        for key in way:
            header = header.setdefault(key, {})
        header[last] = value

    return change


def without(key: str) -> Change:
    return lambda header, tensors: header.pop(key)


def tensor(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    """Another tensor in the place of those whose name ends so."""

    def change(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        for found in [one for one in tensors if one.endswith(name)]:
            tensors[found] = make(tensors[found])

    return change


def box(shape: list[int]) -> dict[str, Any]:
    return {"kind": "Box", "low": 0.0, "high": 1.0, "shape": shape, "dtype": "float32"}


def nested(depth: int) -> str:
    return '{"env": ' + '{"a": ' * depth + "1" + "}" * depth + "}"


HEADERS: dict[str, tuple[Change, str]] = {
    **{f"{key} missing": (without(key), rf"damaged header, {key} is 'missing'") for key in ("env", "seed", "config")},
    "layers": (at("config.layers", 10**6), "layers: expected a whole number from 1 to"),
    "layers of another file": (at("config.layers", 999), "layers=999: the weights allow at most 2"),
    "width": (at("config.width", 65536), "width=65536: the weights allow at most"),
    "width of the file": (at("config.width", 16), r"expected \[.*16.*\] float32, got \["),
    "too wide": (at("config.width", 10**12), "width: expected a whole number"),
    "mlp": (at("config.mlp", 10**9), "expected|at most"),
    "conv": (at("config.conv", 65536), "conv=65536: the weights allow at most"),
    "another encoder": (lambda h, t: h["config"].update(encoder="attention", context=2**24), "context|expected"),
    "heads": (lambda h, t: h["config"].update(encoder="attention", heads=10**6), "heads"),
    "num_envs": (at("config.num_envs", 10**6), r"discounted: expected \[1000000\] float32, got \[4\]|too many"),
    "horizon": (at("config.horizon", 2**24), "too many|horizon"),
    "horizon and num_envs": (
        lambda h, t: h["config"].update(horizon=2**20, num_envs=2**20),
        "steps at once are too many",
    ),
    "NaN setting": (at("config.lr", float("nan")), "lr: expected a number above 0"),
    "text for a number": (at("config.layers", "2"), "layers: expected a whole number"),
    "unknown setting": (at("config.hidden", 3), "no setting 'hidden'"),
    "encoder of another type": (at("config.encoder", ["mlp"]), r"encoder \['mlp'\] is not registered here"),
    "unknown agent": (at("agent", "os"), "no agent 'os'"),
    "agent of another type": (at("agent", ["ppo"]), "agent is"),
    "seed": (at("seed", -1), "seed is -1"),
    "seed true": (at("seed", True), "seed is True"),
    "steps": (at("num_timesteps", 1e30), "num_timesteps is 1e"),
    "endless seconds": (at("seconds", float("inf")), "seconds is inf"),
    "workers": (at("env.workers", 10**6), "env.workers is 1000000"),
    "kwargs": (at("env.kwargs", [1]), "env.kwargs is"),
    "threads": (at("run.threads", 10**6), "run.threads is 1000000"),
    "returns": (at("run.data", {"returns": [], "mean": 0.0}), "run.data.returns is"),
    "large box": (at("observation_space", box([10**5, 10**5])), "expected at most .* entries and choices, got 10,000"),
    "large sides": (at("observation_space", box([2**40, 0, 2**40])), "observation_space|tensor|missing|expected"),
    "negative side": (at("observation_space", box([-1])), "expected a length, got -1"),
    "many axes": (at("observation_space", box([1] * 500)), "observation_space"),
    "other size": (at("observation_space", box([5])), r"expected \[.*5.*\] float"),
    "many choices": (at("action_space", {"kind": "Discrete", "n": 10**12, "start": 0}), "expected at most"),
    "many lists": (at("action_space", {"kind": "MultiDiscrete", "nvec": [2**40] * 3, "start": [0] * 3}), "at most"),
    "many bits": (at("observation_space", {"kind": "MultiBinary", "shape": 2**50}), "expected at most"),
    "void": (at("observation_space", box([2]) | {"dtype": "V1000000000"}), "unknown type of numbers"),
    "no space": (at("observation_space", {"kind": "Box"}), "not the description of a space"),
    "unknown space": (at("observation_space", {"kind": "Torus"}), "unknown kind of space"),
    "parts that are none": (at("observation_space", {"kind": "Dict", "parts": 3}), "not the description of a space"),
    "deep space": (lambda h, t: h.update(observation_space=deep(400)), "observation_space|header|has no tensor"),
    "no header": (at("text", "null"), "expected entries by name"),
    "no JSON": (at("text", "{"), "damaged header"),
    "deep": (at("text", nested(100_000)), "damaged header"),
    "unknown mark": (at("env.kwargs", {"$code": "1"}), "expected a value that rlmin wrote"),
    "array that lies": (
        at("env.kwargs", {"a": {"$array": ["float32", [10**9], []]}}),
        "expected a value that rlmin wrote",
    ),
}

TENSORS: dict[str, tuple[Change, str]] = {
    "NaN weights": (tensor("projection.weight", lambda x: x * float("nan")), "expected finite numbers, got NaN"),
    "one infinite bias": (tensor("value_head.projection.bias", lambda x: x + float("inf")), "expected finite numbers"),
    "int8 weights": (tensor("projection.weight", lambda x: x.to(torch.int8)), "expected .* float32, got .* int8"),
    "complex weights": (tensor("projection.weight", lambda x: x.to(torch.complex64)), "float32, got .* complex64"),
    "half weights": (tensor("projection.weight", lambda x: x.half()), "float32, got .* float16"),
    "double weights": (tensor("projection.weight", lambda x: x.double()), "float32, got .* float64"),
    "transposed": (tensor("action_head.projection.weight", lambda x: x.T.contiguous()), r"expected \[4, 8\]"),
    "cut": (
        tensor("action_head.projection.weight", lambda x: x[:1].clone()),
        r"expected \[4, 8\] float32, got \[1, 8\]",
    ),
    "a weight missing": (lambda h, t: t.pop("policy.value_head.projection.bias"), "and it is missing"),
    "a weight too many": (lambda h, t: t.update({"policy.more": torch.zeros(1)}), "policy: has no tensor 'more'"),
    "no weights": (lambda h, t: [t.pop(name) for name in list(t)], "layers=2: the weights allow at most 0"),
    "negative variance": (tensor("norm.var", lambda x: -x - 1), "a variance and a count that are not negative"),
}

LEARNERS: dict[str, tuple[Change, str]] = {
    "moments of another shape": (tensor("exp_avg", lambda x: x[:-1].clone()), r"optimizer\.0\.exp_avg: expected"),
    "moments of another type": (tensor("exp_avg_sq", lambda x: x.double()), r"exp_avg_sq: expected .* float64"),
    "moments as a table": (tensor("exp_avg", lambda x: x.view(1, -1)), r"optimizer\.0\.exp_avg: expected"),
    "NaN moments": (tensor("exp_avg", lambda x: x * float("nan")), "expected finite numbers"),
    "negative squares": (tensor("exp_avg_sq", lambda x: -x - 1), "moments and a count that are not negative"),
    "no count": (lambda h, t: t.pop("optimizer.0.step", None), r"optimizer\.0\.step: .*missing"),
    "a second vector": (lambda h, t: t.update({"optimizer.1.step": torch.zeros(())}), "has no tensor '1.step'"),
    "random numbers": (tensor("generator.cpu", lambda x: x[:9].clone()), r"generator\.cpu: expected \[5056\] uint8"),
    "scale of returns": (tensor("return_norm.var", lambda x: -x - 1), "not negative"),
    "memory of another shape": (tensor("memory.1", lambda x: x[:, :2].clone()), r"memory\.1: expected"),
    "NaN memory": (tensor("memory.1", lambda x: x * float("nan")), "expected finite numbers"),
    "state of another type": (tensor("env.t", lambda x: x.double()), r"collector\.env\..*expected"),
    "a state missing": (lambda h, t: t.pop("collector.start", None), r"collector\.start: .*missing"),
}


def deep(depth: int) -> dict[str, Any]:
    space: dict[str, Any] = {"kind": "Discrete", "n": 2, "start": 0}
    for _ in range(depth):
        space = {"kind": "Tuple", "parts": [space]}
    return space


def limited(act: Callable[[], Any]) -> str:
    """The error of `act` in a child that may take 300 MiB and 30 s of processor time more; "" where there is none."""

    resource = pytest.importorskip("resource")

    def act_within_limits(written: int) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300 * MIB,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        try:
            act()
        except ValueError as error:
            os.write(written, str(error).encode()[:4096])

    child, output = fork(act_within_limits)
    said = b"".join(iter(lambda: os.read(output, 4096), b""))
    os.close(output)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"ended with {code}: {said.decode()}"
    return said.decode()


@pytest.fixture
def linux() -> Iterator[None]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory cannot be limited here")
    yield


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("only_policy", [False, True], ids=["whole", "policy alone"])
@pytest.mark.parametrize("kind", [*HEADERS, *TENSORS])
def test_a_forged_file_is_one_error_before_anything_is_built(
    kind: str, only_policy: bool, saved: Path, tmp_path: Path
) -> None:
    change, message = {**HEADERS, **TENSORS}[kind]
    run = forge(saved, tmp_path / "run", change, only_policy=only_policy)
    said = limited(lambda: load(run))
    if only_policy and kind in ("num_envs", "horizon"):
        return  # of no account for a policy that acts
    assert re.search(message, said) and len(said) < 700 and "\n" not in said, said


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_learner_that_does_not_fit_is_one_error_and_changes_nothing(kind: str, saved: Path, tmp_path: Path) -> None:
    change, message = LEARNERS[kind]
    run = forge(saved, tmp_path / "run", change)
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, normalize_observation=True, **SMALL)
    before = {name: x.clone() for name, x in {**agent.policy.state_dict(), **agent.learner_state()}.items()}
    with pytest.raises(ValueError, match=message):
        agent.resume(run)
    after = {**agent.policy.state_dict(), **agent.learner_state()}
    assert agent.num_timesteps == 0 and all(torch.equal(x, after[name]) for name, x in before.items())
    assert limited(lambda: PPO.load(run).resume(run)) != ""


def test_what_was_not_forged_loads_under_the_same_limits(saved: Path, cloner: Path, tmp_path: Path) -> None:
    for number, source in enumerate((saved, cloner)):
        run = forge(source, tmp_path / str(number), lambda header, tensors: None)
        assert limited(partial(load, run)) == ""
        for file in (POLICY, LEARNER):
            assert read(run, file)[0] == read(source, file)[0]


def test_a_decision_agent_is_checked_alike(cloner: Path, tmp_path: Path) -> None:
    for number, (change, message) in enumerate(
        {
            at("config.rows", 2**20): "rows=1048576: the saved memory has 2",
            at("config.context", 2**24): r"numbers to remember are too many|context",
            at("dataset.digest", 3): "dataset.digest is 3",
            tensor("exp_avg", lambda x: x[1:].clone()): "exp_avg: expected",
            tensor("memory.0", lambda x: x * float("nan")): "expected finite numbers",
        }.items()
    ):
        run = forge(cloner, tmp_path / str(number), change)
        with pytest.raises(ValueError, match=message):
            load(run)


def test_a_memory_that_no_tensor_bounds_has_a_largest_size(tmp_path: Path) -> None:
    PPO("CartPole-v1", encoder="attention", context=8, **SMALL).save(tmp_path / "good")
    assert load(tmp_path / "good").num_timesteps == 0
    for name, context in (("small", 9), ("large", 2**23)):
        run = forge(tmp_path / "good", tmp_path / name, at("config.context", context))
        if name == "small":
            load(run)  # another context belongs to the same weights
            continue
        with pytest.raises(ValueError, match=r"numbers to remember are too many \(context\?\)"):
            load(run)


@pytest.mark.parametrize("encoder", MIXERS)
def test_every_encoder_passes_its_own_check(encoder: str, tmp_path: Path) -> None:
    for share in (True, False):
        agent = PPO("CartPole-v1", encoder=encoder, share_memory=share, normalize_observation=True, **SMALL)
        agent.save(tmp_path)
        assert load(tmp_path).num_timesteps == 0


def test_the_command_line_says_it_in_one_line(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = forge(saved, tmp_path / "run", TENSORS["NaN weights"][0])
    for command in (["evaluate", str(run)], ["train", "--resume", str(run), "--total-timesteps", "128"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.count("\n") == 1 and "expected finite numbers, got NaN" in said
