"""The command line: what works prints what it did, what does not prints one line and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from unix import SIGNALS

from rlmin import PPO, __version__, load
from rlmin.cli import main
from rlmin.commands.train import TrainConfig, read_preset
from rlmin.commands.training_run import stop_on_signals
from rlmin.runs.checkpoint import LEARNER, read

SMALL = ["--width", "8", "--horizon", "10", "--num-envs", "4", "--minibatches", "2", "--env-kwargs", "length=4"]
SMALL += ["--evaluations", "0"]  # tests/test_watchdog.py has them
SHORT = [*SMALL, "--total-timesteps", "200", "--eval-episodes", "8"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own, as wide as a line of help."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# what works


def test_training_leaves_a_run_that_evaluates_plots_and_resumes(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["train", "tmaze", *SHORT])
    said = capfd.readouterr().out
    assert said.startswith("run: runs/tmaze-0\n")
    assert re.search(r"200/200 steps  return -?[\d.]+  success \d+ %  [\d,]+ steps/s  0 s left", said)
    assert re.search(r"greedy on rlmin/TMaze-v0 length=4: return .* success [\d.]+ % \[[\d.]+, [\d.]+\]", said)
    run = here / "runs" / "tmaze-0"
    names = {"config.yaml", "policy.safetensors", "learner.safetensors", "metrics.csv", "curve.png"}
    assert {name for name in written(run) if "tfevents" not in name} == names
    assert len(written(run)) == 6

    main(["evaluate", str(run), "--episodes", "12", "--env-kwargs", "length=3"])
    found = capfd.readouterr().out
    assert re.fullmatch(
        r"return \S+ \[\S+, \S+\]  success [\d.]+ % \[[\d.]+, [\d.]+\]  length 4.0  \(12 episodes, 95 % intervals\)\n",
        found,
    )
    main(["plot", str(run), "--file", "two.png"])
    assert (here / "two.png").read_bytes().startswith(b"\x89PNG") and "two.png" in capfd.readouterr().out
    main(["train", f"--resume={run}", "--total-timesteps", "280"])
    assert load(run).num_timesteps == 280
    main(["train", "tmaze", *SHORT, "--eval-episodes", "0"])
    assert (here / "runs" / "tmaze-1").is_dir(), "the next free number"


def test_a_key_given_wins_over_the_preset_and_numbers_are_numbers() -> None:
    main(["train", "tmaze", *SHORT, "--lr", "1e-4", "--eval-episodes", "0", "--folder", "a", "--seed", "7"])
    preset = read_preset("tmaze")
    settings = yaml.safe_load(Path("a/config.yaml").read_text())
    assert settings["config"]["lr"] == 1e-4 != preset.get("lr")
    assert settings["config"]["width"] == 8 and settings["env"]["kwargs"] == {"length": 4} and settings["seed"] == 7
    assert settings["config"]["entropy"] == preset["entropy"], "what was not given is the preset's"
    assert settings["config"]["gamma"] == TrainConfig(env="x").gamma, "and what it does not say is the default"


def test_a_file_of_ones_own_is_a_preset() -> None:
    Path("mine.yaml").write_text(
        "env: CartPole-v1\ntotal_timesteps: 64\nlr: 1e-4\nnum_envs: 2\nhorizon: 16\nwidth: 8\neval_episodes: 0\n"
    )
    main(["train", "mine.yaml"])
    assert PPO.load("runs/mine-0").config.lr == 1e-4
    small = ["--total-timesteps", "32", "--num-envs", "2", "--horizon", "16", "--width", "8", "--eval-episodes", "0"]
    main(["train", "--env", "CartPole-v1", *small])
    assert load("runs/CartPole-v1-0").config.width == 8


def test_help_names_every_setting_with_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for key in set(TrainConfig.__dataclass_fields__) - {"encoder_options"}:  # its entries have options of their own
        assert "--" + key.replace("_", "-") in said, key
    for comment in (
        "Learning rate at the start",
        "Gymnasium id",
        "mean 0 and deviation 1",
        "Steps that gradients flow back through",
    ):
        assert comment in said, comment
    assert "minigrid-memory" in said and "(default: 0.99)" in said
    main([])
    main(["--help"])
    assert "usage: rlmin COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "some"),
    [("presets", {"tmaze", "minigrid-memory"}), ("envs", {"rlmin/TMaze-v0"}), ("encoders", {"min_gru", "mlp"})],
)
def test_list_says_what_there_is(what: str, some: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", what])
    assert some <= set(capsys.readouterr().out.split())


def test_presets_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "presets"])
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("tmaze            T-maze of length 50: remember one bit for 50 steps. ") for line in lines
    )
    facts = re.compile(r"\. [\d,]+ steps( in \d+ to \d+ s on one thread)?; return -?[\d.]+ \(zoo\)$")
    assert all(map(facts.search, lines))


def test_training_of_nothing_names_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "minigrid-memory" in error and "--env ID" in error


def test_list_says_which_datasets_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    main(["list", "datasets"])
    assert capsys.readouterr().out == f"no Minari dataset in {tmp_path}\n"
    task = ["--env", "rlmin/TMaze-v0", "--env-kwargs", "length=3", "--policy", "random"]
    main(["collect", *task, "--dataset", "maze/random", "--episodes", "5"])
    capsys.readouterr()
    main(["list", "datasets"])
    assert capsys.readouterr().out == "maze/random-v0: 5 episodes, 20 steps of rlmin/TMaze-v0\n"


# what does not

BAD: dict[str, tuple[list[str], str]] = {
    "command": (["trian", "tmaze"], "no command 'trian'; did you mean 'train'?"),
    "preset": (["train", "tmaz"], "no preset 'tmaz'; did you mean 'tmaze'?"),
    "file": (["train", "mine.yaml"], "mine.yaml: no such file"),
    "list": (["list", "preset"], "no list of 'preset'; did you mean 'presets'?"),
    "env": (["train", "--env", "CartPol-v1", *SHORT], "did you mean 'CartPole-v"),
    "env argument": (["train", "tmaze", *SHORT, "--env-kwargs", "lenght=4"], "rlmin/TMaze-v0: "),
    "env value": (["train", "tmaze", *SHORT, "--env-kwargs", "length=0"], "length=0: the corridor needs"),
    "pair": (["train", "tmaze", *SHORT, "--env-kwargs", "length"], "expected key=value, got 'length'"),
    "eval argument": (["train", "tmaze", *SHORT, "--eval-kwargs", "lenght=4"], "rlmin/TMaze-v0: "),
    "module": (["train", "--env", "no_such_module:Env-v0", *SHORT], "No module named 'no_such_module'"),
    "device": (["train", "tmaze", *SHORT, "--device", "warp"], "warp"),
    "minibatches": (["train", "tmaze", *SHORT, "--minibatches", "3"], "minibatches=3 must divide the 4 environments"),
    "key": (["train", "tmaze", "--gama", "0.9"], "no option '--gama'; did you mean '--gamma'?"),
    "encoder": (["train", "tmaze", "--encoder", "mingru"], "no encoder 'mingru'; did you mean 'min_gru'?"),
    "candidate": (["train", "tmaze", "--candidate=tahn"], "no candidate 'tahn'; did you mean 'tanh'?"),
    "resume": (["train", "--resume", "runs/none"], "runs/none: no such run folder"),
    "resume and preset": (["train", "tmaze", "--resume", "runs/none"], "leave out 'tmaze'"),
    "evaluate": (["evaluate", "runs/none"], "runs/none: no such run folder"),
    "plot": (["plot", "runs/none"], "runs/none: no such run folder"),
    "plot nothing": (["plot"], "rlmin: plot: runs is missing: Run folders"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_exit_code_two(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = BAD[kind]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    heard = capsys.readouterr()
    assert ended.value.code == 2 and heard.out == ""
    assert heard.err.startswith("rlmin: ") and heard.err.count("\n") == 1 and message in heard.err
    assert written(here) == [], "nothing half-written"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["train", "tmaze", "--gama", "0.9"], "--gamma"),
        (["train", "tmaze", "--encoder", "min_gro"], "min_gru"),
        (["train", "tmaze", "--lr", "fast"], "fast"),
        (["evaluate", "run", "--episode", "3"], "--episodes"),
        (["train", "--total-timesteps", "5"], "--env"),
        (["train", "tmaze", *SHORT, "--bptt", "3"], "bptt=3 must divide horizon=10"),
        (
            ["train", "tmaze", *SHORT, "--total-timesteps", "0"],
            "total_timesteps: expected a whole number of at least 1, got 0",
        ),
    ],
)
def test_a_key_or_value_that_is_none_is_answered_with_the_nearest(
    arguments: list[str], near: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    heard = capsys.readouterr()
    assert ended.value.code == 2 and near in heard.out + heard.err and "Traceback" not in heard.err
    assert written(here) == []


def test_a_kernel_that_does_not_exist_is_named_before_a_folder_is_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLMIN_KERNEL", "foo")
    with pytest.raises(SystemExit) as ended:
        main(["train", "tmaze", *SHORT])
    assert ended.value.code == 2 and "RLMIN_KERNEL: expected one of" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_changing_one_environment_argument_of_a_preset_keeps_the_others(here: Path) -> None:
    Path("mine.yaml").write_text("env: rlmin/TMaze-v0\nenv_kwargs: {length: 4, active: true}\n")
    main(["train", "mine.yaml", *SHORT, "--folder", "run", "--eval-episodes", "0", "--env-kwargs", "length=5"])
    assert load("run").env_spec["kwargs"] == {"length": 5, "active": True}


def test_another_environment_does_not_get_the_arguments_of_the_preset_s_own(here: Path) -> None:
    settings = ["--total-timesteps", "200", "--width", "8", "--num-envs", "8", "--horizon", "10"]
    main(["train", "tmaze", *settings, "--env", "CartPole-v1", "--folder", "run", "--eval-episodes", "0"])
    assert load("run").env_spec["kwargs"] == {}


def test_a_typo_in_a_file_is_answered_with_the_nearest_key(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("env: CartPole-v1\nentropie: 0.1\n")
    with pytest.raises(SystemExit) as ended:
        main(["train", "mine.yaml"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "rlmin: mine.yaml: no setting 'entropie'; did you mean 'entropy'?\n"


def test_a_run_of_another_space_or_in_the_way_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "tmaze", *SHORT, "--folder", "run", "--eval-episodes", "0"])
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    for arguments, message in (
        (["evaluate", "run", "--env", "CartPole-v1"], "observation space: the policy expects"),
        (["evaluate", "run", "--env", "rlmin/TMaz-v0"], "did you mean 'rlmin/TMaze-v0'"),
        (["evaluate", "run", "--episodes", "0"], "episodes: expected a whole number of at least 1, got 0"),
        (["train", "tmaze", *SHORT, "--folder", "run"], "there is a run already; resume it with --resume run"),
        (["train", "--resume", "run"], "finished at 200 steps"),
        (["train", "tmaze", *SHORT, "--folder", "run/config.yaml"], "config.yaml"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2 and message in capsys.readouterr().err, message
    assert before == {path: path.read_bytes() for path in Path("run").iterdir()}


# processes of their own: signals and disasters


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from rlmin.cli import main; main()", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**ENVIRONMENT, **more}, process_group=0)


def until_it_trains(process: subprocess.Popen[str], run: Path) -> None:
    deadline = time.monotonic() + 60
    while not ((run / "metrics.csv").exists() and len((run / "metrics.csv").read_text().splitlines()) > 2):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.05)


@SIGNALS
@pytest.mark.parametrize(
    ("number", "workers"),
    [
        pytest.param(signal.SIGINT, 0, id="int", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0, id="term"),
        pytest.param(signal.SIGINT, 1, id="workers"),
    ],
)
def test_a_signal_saves_says_how_to_go_on_and_the_run_can_be_finished(
    number: signal.Signals, workers: int, here: Path
) -> None:
    task = ["tmaze", *SMALL] if not workers else ["cartpole", "--width", "8", "--num-envs", "2", "--horizon", "16"]
    process = start("train", *task, "--total-timesteps", "100_000_000", "--folder", "run", "--workers", str(workers))
    until_it_trains(process, here / "run")
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    said, heard = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert heard == "" and re.search(
        r"stopped at [\d,]+ steps and saved; resume with: rlmin train --resume run\n$", said
    )
    steps = load("run").num_timesteps
    assert steps > 0 and read(Path("run"), LEARNER)[0]["num_timesteps"] == steps
    if not workers:
        main(["train", "--resume", "run", "--total-timesteps", str(steps + 100)])
        lines = Path("run/metrics.csv").read_text().splitlines()[1:]
        assert load("run").num_timesteps >= steps + 100 and len(lines) == load("run").num_updates


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no hang-ups here")
@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_closes_saves_too_and_under_nohup_nothing_happens(nohup: bool) -> None:
    agent = PPO("rlmin/TMaze-v0", width=8, layers=1, num_envs=2, horizon=8)
    first = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        with stop_on_signals(agent) as caught:
            os.kill(os.getpid(), signal.SIGHUP)
        assert caught == ([] if nohup else [signal.SIGHUP]) and agent.stop_requested is not nohup
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if nohup else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, first)


POISON = """
import gymnasium as gym, numpy as np

class Poison(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        Poison.steps += 1
        return np.zeros(2, np.float32), float("nan") if Poison.steps > 300 else 1.0, False, Poison.steps % 7 == 0, {}

gym.register("Poison-v0", Poison, disable_env_checker=True)
"""


def test_a_reward_that_is_no_number_ends_the_run_with_its_last_good_checkpoint_kept(here: Path) -> None:
    Path("poison.py").write_text(POISON)
    task = ["--env", "poison:Poison-v0", "--num-envs", "2", "--horizon", "16", "--width", "8", "--save-interval", "64"]
    process = start("train", *task, "--folder", "run", PYTHONPATH=f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{here}")
    _, heard = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"rlmin: reward: NaN or inf from environment \d at step \d+ since reset\n", heard)
    agent = load("run")
    assert agent.num_timesteps == 256 and all(x.isfinite().all() for x in agent.policy.parameters())


def test_the_package_itself_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "rlmin", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__
