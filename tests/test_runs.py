"""Runs: what an agent leaves on disk acts and trains on as the agent would have, and whatever is damaged is refused."""

import gc
import os
import pickletools
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from rlmin import PPO, load, make_vec
from rlmin.agents.agent import Agent
from rlmin.cli import main
from rlmin.commands.train import TrainConfig, resume, train
from rlmin.encoders import MIXERS
from rlmin.runs.checkpoint import CONFIG, LEARNER, POLICY, read, write_atomic
from rlmin.runs.curves import read_columns

T, B = 10, 4
SMALL: dict[str, Any] = {"width": 8, "horizon": T, "num_envs": B, "minibatches": 2, "lr_final": None}
MAZE = {"length": 4}


def make(seed: int = 0, env: str = "rlmin/TMaze-v0", **settings: Any) -> PPO:
    kwargs = MAZE if "TMaze" in env else None
    return PPO(env, env_kwargs=kwargs, seed=seed, **{**SMALL, **settings})


def state(agent: Agent) -> dict[str, Tensor]:
    everything = {**agent.policy.state_dict(), **agent.learner_state()}
    return {name: x.clone() for name, x in everything.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make().learn(3 * T * B).save(folder)
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


# saving and loading


def test_a_loaded_agent_goes_on_learning_with_the_optimizer_and_normaliser_it_had(tmp_path: Path) -> None:
    agent = make(normalize_return=True).learn(2 * T * B)
    agent.save(tmp_path)
    again = PPO.load(tmp_path)
    steps = {name: x for name, x in again.learner_state().items() if name.startswith("optimizer")}
    assert steps and all(torch.equal(x, agent.learner_state()[name]) for name, x in steps.items())
    assert float(again.advantages.return_norm.count) == float(agent.advantages.return_norm.count) > 0
    assert float(again.advantages.value_norm.mean) == float(agent.advantages.value_norm.mean) != 0
    assert float(make().advantages.return_norm.count) == 0, "a new agent has none of it: the arm that must differ"


def test_the_class_loads_as_in_stable_baselines3(run: Path) -> None:
    assert same(PPO.load(run).policy.state_dict(), load(run).policy.state_dict())
    assert PPO.load(run, make_vec("rlmin/TMaze-v0", 6, length=4)).vector.num_envs == 6


def test_weights_of_another_policy_are_refused_by_name(run: Path) -> None:
    with pytest.raises(ValueError, match="the weights belong to another policy: width=8 there, 16 here"):
        (agent := make(width=16)).resume(run)
    assert agent.num_timesteps == 0, "a refused checkpoint leaves the counters as they were"


def test_random_numbers_of_another_kind_of_device_are_drawn_anew(run: Path) -> None:
    header, tensors = read(run, LEARNER)
    tensors["generator.elsewhere"] = tensors.pop("generator.cpu")
    agent = make()
    agent.restore(header, tensors)
    fresh = torch.Generator().manual_seed(agent.seed + agent.num_timesteps)
    assert torch.equal(agent.generator.get_state(), fresh.get_state())


def test_a_checkpoint_is_three_plain_files_of_which_none_is_a_pickle(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {CONFIG, POLICY, LEARNER}
    for path in saved.iterdir():
        with pytest.raises((ValueError, IndexError)):
            list(pickletools.genops(path.read_bytes()))
    written = yaml.safe_load((saved / CONFIG).read_text())
    assert written["config"]["width"] == 8 and written["env"] == {"id": "rlmin/TMaze-v0", "kwargs": MAZE, "workers": 0}


@pytest.mark.parametrize("encoder", MIXERS)
def test_a_loaded_agent_acts_as_the_saved_one(encoder: str, tmp_path: Path) -> None:
    agent = make(encoder=encoder, normalize_observation=True, previous_action=True).learn(T * B)
    agent.save(tmp_path)
    loaded, fresh = PPO.load(tmp_path), make(1, encoder=encoder, normalize_observation=True, previous_action=True)
    memory: dict[PPO, Any] = dict.fromkeys((agent, loaded, fresh))
    differs = False
    rng = np.random.default_rng(0)
    for t in range(6):
        seen = rng.uniform(-1, 1, (B, 2)).astype(np.float32)
        start = np.full(B, t in (0, 3))
        values: dict[PPO, list[Any]] = {}
        for other in memory:
            action, memory[other] = other.predict(seen, memory[other], start, deterministic=True)
            values[other] = [action, *leaves(memory[other])]
        assert all(np.array_equal(x, y) for x, y in zip(values[agent], values[loaded], strict=True))
        differs |= any(not np.array_equal(x, y) for x, y in zip(values[agent], values[fresh], strict=True))
    assert differs, "the arm that must fail: another agent"


def leaves(memory: Any) -> list[Tensor]:
    return [x for part in memory for x in leaves(part)] if isinstance(memory, tuple) else [memory]


def test_an_agent_made_with_an_environment_remembers_how_it_was_made(tmp_path: Path) -> None:
    PPO(gym.make("rlmin/TMaze-v0", length=7), width=8).save(tmp_path)
    assert load(tmp_path).get_env().length == 7
    agent = load(tmp_path, env="rlmin/TMazeActive-v0")
    assert agent.env_spec["id"] == "rlmin/TMazeActive-v0", "it goes on in the one it was given"


# resuming


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"encoder": "lstm", "share_memory": False, "bptt": 5},
        {"previous_action": True, "previous_reward": True, "normalize_observation": True, "normalize_return": True},
        {"lr_final": 0.0, "entropy_final": 0.0},
        {"encoder": "attention", "context": 7, "heads": 2},
        pytest.param({"encoder": "aaren"}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(settings: dict[str, Any], tmp_path: Path) -> None:
    total = 6 * T * B - 7
    whole = make(**settings).learn(total)
    half = stopped(make(**settings), total, updates=3)
    half.save(tmp_path)
    again = PPO.load(tmp_path)
    again.resume(tmp_path)
    assert same(state(half), state(again))
    again.learn(total - again.num_timesteps, reset_num_timesteps=False)
    assert same(state(whole), state(again))
    forgot = PPO.load(tmp_path)  # weights alone: the arm that must fail
    forgot.learn(total - forgot.num_timesteps, reset_num_timesteps=False)
    assert not same(state(whole), state(forgot))


def stopped(agent: PPO, total: int, *, updates: int) -> PPO:
    """The agent after some updates of a longer training, stopped from outside as by a signal."""

    def look(local: dict[str, Any], _: dict[str, Any]) -> bool:
        agent.stop_requested = agent.num_timesteps == updates * T * B
        return True

    return agent.learn(total, look)


def test_an_environment_that_cannot_say_its_state_goes_on_with_new_episodes(tmp_path: Path) -> None:
    agent = make(env="CartPole-v1").learn(3 * T * B)
    agent.save(tmp_path)
    again = PPO.load(tmp_path)
    again.resume(tmp_path)
    assert again.num_timesteps == 3 * T * B and bool(again.collector.now.start.all())
    assert again.collector.statistics.episodes == agent.collector.statistics.episodes
    again.learn(2 * T * B, reset_num_timesteps=False)
    assert again.num_timesteps == 5 * T * B and again.num_updates == 5


# what is refused


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def edit(path: Path, old: str, new: str) -> None:
    content = path.read_bytes()
    assert content.count(old.encode()) == 1
    path.write_bytes(content.replace(old.encode(), new.encode()))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such run folder"),
    "no tensors": (
        lambda run: list(map(os.remove, (run / POLICY, run / LEARNER))),
        rf"incomplete run, expected {POLICY}",
    ),
    "byte of the learner": (lambda run: flip(run / LEARNER, -5), "learner.*does not match its digest"),
    "learner cut short": (lambda run: os.truncate(run / LEARNER, 900), "learner.*damaged, expected a safetensors file"),
    "tensor byte": (lambda run: flip(run / POLICY, -5), "does not match its digest"),
    "header edited": (lambda run: edit(run / POLICY, r"\"num_updates\": 3", r"\"num_updates\": 4"), "match its digest"),
    "other version": (
        lambda run: edit(run / POLICY, '"format":"1"', '"format":"9"'),
        "format 1, got 9; another version",
    ),
    "cut short": (lambda run: os.truncate(run / POLICY, 900), "damaged, expected a safetensors file"),
    "empty": (lambda run: (run / POLICY).write_bytes(b""), "damaged, expected a safetensors file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_edited_run_is_refused_in_one_sentence(kind: str, run: Path) -> None:
    load(run)
    spoil, message = DAMAGE[kind]
    spoil(run)
    with pytest.raises(ValueError, match=message) as caught:
        load(run)
    assert "\n" not in str(caught.value)


WRITTEN_AGAIN = ("cut short", "empty")  # the policy's file, of which the learner's holds everything


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind not in WRITTEN_AGAIN])
def test_a_damaged_run_named_on_resume_is_one_line_and_stays_as_it_is(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = DAMAGE[kind]
    spoil(run)
    before, message = files_of(run), message.replace(f"expected {POLICY}", f"expected {LEARNER}")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", str(run), "--total-timesteps", "400"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"rlmin: {run}") and re.search(message, said)
    assert files_of(run) == before


@pytest.mark.parametrize("kind", WRITTEN_AGAIN)
def test_a_damaged_policy_beside_a_whole_learner_is_written_again(kind: str, run: Path) -> None:
    steps = load(run).num_timesteps
    DAMAGE[kind][0](run)
    resume(run, total_timesteps=steps + T * B, progress_bar=False)
    assert load(run).num_timesteps == steps + T * B


def files_of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, but for the lock that a process leaves."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "lock" not in path.name}


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a setting": (lambda file: edit(file, "width: 8", "width: 9"), r"\(width: 9\)"),
    "the seed": (lambda file: edit(file, "seed: 0", "seed: 1"), r"\(seed: 1\)"),
    "no YAML": (lambda file: file.write_text("a: ["), r"\(a: \["),
    "no text": (lambda file: file.write_bytes(b"\xff\xfe\xff"), "was edited after training"),
    "empty": (lambda file: file.write_text(""), r"\(something is missing\)"),
    "a bomb": (lambda file: file.write_text(bomb()), "was edited after training"),
    "huge": (lambda file: os.truncate(file, 2**36), "was edited after training"),
}


def bomb() -> str:
    """YAML that becomes 10^12 lists when it is parsed and compared."""
    lists = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10) if i else '0'}]" for i in range(12)]
    return "\n".join(lists)


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_config_has_no_effect_and_that_is_said_once(kind: str, run: Path) -> None:
    before = state(load(run))
    change, message = EDITS[kind]
    change(run / CONFIG)
    with pytest.warns(UserWarning, match="which has no effect: the weights belong to the settings they were") as caught:
        agent = load(run)
    assert len(caught) == 1 and re.search(message, str(caught[0].message)) and len(str(caught[0].message)) < 600
    assert same(state(agent), before)
    agent.save(run)
    load(run)


def test_a_config_that_nobody_edited_is_no_warning_however_old_it_is(run: Path, saved: Path) -> None:
    """As a kill between two files leaves it, a checkout on Windows, or a version of before edits were noticed."""
    agent = load(run)
    agent.run["device"] = "cpu"
    agent.save(run)
    for content in (
        (saved / CONFIG).read_bytes(),
        (run / CONFIG).read_bytes().replace(b"\n", b"\r\n"),
        (run / CONFIG).read_bytes().split(b"\n", 1)[1],
    ):
        (run / CONFIG).write_bytes(content)
        load(run)
    (run / CONFIG).unlink()
    load(run)


def test_another_space_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match=r"observation space: the policy expects Box.*the environment has Box"):
        load(run, env="CartPole-v1")
    with pytest.raises(ValueError, match="observation space"):
        load(run).set_env("CartPole-v1")


# writing


def test_settings_that_cannot_be_written_leave_nothing_behind(tmp_path: Path) -> None:
    agent = make()
    agent.run["bad"] = object()
    with pytest.raises(TypeError, match=r"run\['bad'\]: cannot be written to a file, it is of type object"):
        agent.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_is_replaced_whole_with_the_rights_that_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "a", b"one")
    write_atomic(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two" and {path.name for path in tmp_path.iterdir()} == {"a", "plain"}
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


# whole runs


def config(folder: Path, **changes: Any) -> TrainConfig:
    small = {**SMALL, "total_timesteps": 6 * T * B, "eval_episodes": 4, "save_interval": 2 * T * B, "evaluations": 0}
    return TrainConfig(env="rlmin/TMaze-v0", env_kwargs=("length=4",), folder=folder, **{**small, **changes})


def rows(folder: Path, *, without: tuple[str, ...] = ("time/fps", "time/time_elapsed")) -> list[dict[str, str]]:
    import csv

    with (folder / "metrics.csv").open() as lines:
        return [{key: x for key, x in row.items() if key not in without} for row in csv.DictReader(lines)]


def test_a_run_that_was_killed_has_in_the_end_the_metrics_of_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = train(config(tmp_path / "whole"), progress_bar=False), tmp_path / "killed"
    killed_run(killed, saved=3, lost=2)
    assert len(rows(killed)) == 5
    resume(killed, total_timesteps=6 * T * B, progress_bar=False)
    found, wanted = rows(killed), rows(whole)
    assert [float(row["time/total_timesteps"]) for row in found] == [(i + 1) * T * B for i in range(6)]
    assert [sorted(row.items()) for row in found] == [sorted(row.items()) for row in wanted]
    assert same(read(whole, LEARNER)[1], read(killed, LEARNER)[1])


def killed_run(folder: Path, *, saved: int, lost: int) -> None:
    """A run that was killed `lost` updates after its last checkpoint, with all of its metrics on disk."""
    from rlmin.runs.logs import make_logger

    agent = make()
    folder.mkdir()
    agent.set_logger(make_logger(folder, {}))
    agent.learn(saved * T * B)
    agent.save(folder)
    agent.learn(lost * T * B, reset_num_timesteps=False)
    agent.logger.close()


def test_tensorboard_shows_settings_curves_and_how_long_each_unit_remembers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    train(config(tmp_path, eval_episodes=0), progress_bar=False)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    tags = board.Tags()
    assert {"rollout/ep_rew_mean", "rollout/success_rate", "train/grad_norm", "time/fps"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("train/loss")] == [(i + 1) * T * B for i in range(6)]
    scales = [tag for tag in tags["histograms"] if tag.startswith("memory/log10_time_scale/")]
    assert len(scales) == 2, "one for each layer"
    assert board.Histograms(scales[0])[0].histogram_value.num == 8
    assert any("hparams" in tag for tag in board.summary_metadata)


def test_a_run_in_the_way_is_not_overwritten_and_a_finished_one_can_go_further(tmp_path: Path) -> None:
    train(config(tmp_path, eval_episodes=0), progress_bar=False)
    with pytest.raises(ValueError, match="there is a run already; resume it with --resume"):
        train(config(tmp_path), progress_bar=False)
    with pytest.raises(ValueError, match="finished at 240 steps; extend it with --total-timesteps"):
        resume(tmp_path, progress_bar=False)
    resume(tmp_path, total_timesteps=7 * T * B, progress_bar=False)
    assert len(rows(tmp_path)) == 7
    assert load(tmp_path).run["eval_episodes"] == 0, "the run's own settings are kept"


def test_a_resumed_run_clears_what_killed_writers_left(tmp_path: Path) -> None:
    train(config(tmp_path, eval_episodes=0), progress_bar=False)
    left = [f".{name}.0123456789abcdef.rlmin" for name in (CONFIG, POLICY, LEARNER, "metrics.csv", "curve.png")]
    for name in [*left, ".learner.safetensors.123", ".mine"]:  # also as they were called once
        (tmp_path / name).write_bytes(b"half of it")
    with pytest.raises(ValueError, match="finished at"):  # whatever comes of it
        resume(tmp_path, progress_bar=False)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".mine"}


def test_a_run_stopped_before_its_curve_gets_it_on_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(tmp_path, eval_episodes=2), progress_bar=False)
    (tmp_path / "curve.png").unlink()
    weights = (tmp_path / POLICY).read_bytes()
    capsys.readouterr()
    resume(tmp_path, progress_bar=False)
    assert (tmp_path / "curve.png").stat().st_size > 1000 and "greedy on" in capsys.readouterr().out
    assert (tmp_path / POLICY).read_bytes() == weights
    with pytest.raises(ValueError, match="finished at 240 steps"):
        resume(tmp_path, progress_bar=False)


def test_training_works_outside_the_main_thread(tmp_path: Path) -> None:
    from threading import Thread

    worker = Thread(target=lambda: train(config(tmp_path / "run", eval_episodes=0), progress_bar=False))
    worker.start()
    worker.join()
    assert load(tmp_path / "run").num_updates == 6


def test_a_run_from_before_values_had_a_unit_acts_and_goes_on_as_it_was(tmp_path: Path) -> None:
    agent = make(normalize_return=True, normalize_value=False).learn(2 * T * B)
    agent.save(tmp_path)
    header, tensors = read(tmp_path, LEARNER)
    old = {name: x for name, x in tensors.items() if "value_head.mean" not in name and "value_head.scale" not in name}
    old = {name: x for name, x in old.items() if not name.startswith(("value_norm", "largest_reward", "usual_norm"))}
    again = make(normalize_return=True, normalize_value=False)
    again.restore(header, old)
    assert same(again.policy.state_dict(), agent.policy.state_dict())
    assert same(again.advantages.return_norm.state_dict(), agent.advantages.return_norm.state_dict())
    assert torch.equal(again.advantages.discounted, agent.advantages.discounted)
    assert float(again.policy.value_head.scale) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
@pytest.mark.parametrize("name", [CONFIG, POLICY, LEARNER, "metrics.csv"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    if name == "metrics.csv":
        with pytest.raises(ValueError, match=r"metrics\.csv: cannot be read \(it is no file\)"):
            read_columns(run)
    elif name == CONFIG:
        assert load(run).num_timesteps == 3 * T * B
    else:
        with pytest.raises(ValueError, match=rf"{name}: damaged, expected a file"):
            read(run, name)


def test_reading_a_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    PPO("rlmin/TMaze-v0", num_envs=4, horizon=4, width=8, seed=0).save(tmp_path)

    def held(times: int) -> int:
        """Bytes that Python holds after so many readings, of what the reader has allocated."""
        for _ in range(times):
            read(tmp_path, LEARNER)
        gc.collect()
        found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*checkpoint.py")])
        return sum(trace.size for trace in found.traces)

    tracemalloc.start()
    try:
        few = held(60)  # what Python keeps for itself, as free lists and interned names, is full by then
        assert held(100) - few < 100_000, "64 bytes for each of 70 tensors would be 448,000"
    finally:
        tracemalloc.stop()
