"""YAML that a stranger wrote: plain values or one line, in no time, wherever the command line reads it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlmin import PPO
from rlmin.cli import main
from rlmin.commands.presets import PRESETS, read_preset
from rlmin.files.read_yaml import BYTES, DEPTH, VALUES, parse_yaml, read_yaml
from rlmin.vector.make import parse_pairs


def layers(count: int, line: str) -> str:
    return "a0: &a0 {k: 1}\n" + "".join(line.format(i=i, j=i - 1) for i in range(1, count))


BOMBS = {
    "aliases": layers(12, "a{i}: &a{i} [*a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}, *a{j}]\n"),
    "aliases in keys' place": layers(40, "a{i}: &a{i} {{x: *a{j}, y: *a{j}}}\n"),
    "merged": layers(40, "a{i}: &a{i} {{<<: [*a{j}, *a{j}]}}\n"),
    "wide": f"[{'1,' * (VALUES + 1)}]",
    "anchor given again": layers(30, "a{i}: &x [*a{j}, *a{j}]\nb{i}: &a{i} [*x, *x]\n"),
}
DEEP = {
    "flow": "[" * 100_000,
    "maps": "{a: " * 3000,
    "block": "- " * 3000 + "a",
    "questions": "? " * 3000,
    "through an alias": "a: &a " + "[" * 30 + "]" * 30 + "\nb: " + "[" * 30 + "*a" + "]" * 30,
    "just too deep": "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
}
WRONG = {
    "tag": "!!python/object/apply:os.system [ls]",
    "date": "2001-99-99",
    "no bool": "!!bool x",
    "no int": "!!int ''",
    "digits": "9" * 5000,
    "two documents": "a: 1\n---\nb: 2",
    "nul": "a: \0",
    "unclosed": "'" + "a\n" * 1000,
    "list as key": "? [1]\n: 2",
    "recursion": "a: &a [*a]",
    "no anchor": "a: *b",
}
TWICE = ["a: 1\na: 2", "x: {b: 1, b: 2}", "1: x\n0x1: y", "x: [{c: 1, c: 1}]", "!!set {a, a}"]


@pytest.mark.parametrize("text", [*BOMBS.values()], ids=[*BOMBS])
def test_values_are_counted_as_they_are_used(text: str) -> None:
    with pytest.raises(ValueError, match=r"here: expected at most 100,000 values"):
        parse_yaml(text, where="here")


@pytest.mark.parametrize("text", [*DEEP.values()], ids=[*DEEP])
def test_nesting_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match=r"here: expected values at most 50 deep"):
        parse_yaml(text, where="here")


@pytest.mark.parametrize("text", [*WRONG.values()], ids=[*WRONG])
def test_whatever_is_wrong_is_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^here: ") as found:
        parse_yaml(text, where="here")
    assert len(str(found.value)) < 400 and "\n" not in str(found.value)


@pytest.mark.parametrize("text", TWICE)
def test_a_key_given_twice_is_an_error(text: str) -> None:
    yaml.safe_load(text)  # which lets the first of them vanish
    with pytest.raises(ValueError, match="stands there twice"):
        parse_yaml(text, where="here")


def test_what_people_write_is_read_as_before() -> None:
    text = "a: &a {x: 1, y: [2.5, null]}\nb: {<<: *a, x: 3}\nc: [*a, *a]\nd: 1e-3\ne: 1.0e-3\nf: on\n"
    assert parse_yaml(text, where="here") == yaml.safe_load(text)
    assert parse_yaml("", where="here") is None
    assert parse_yaml("[" * DEPTH + "]" * DEPTH, where="here")
    for path in PRESETS.rglob("*.y*ml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text()), path


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_text("# " + "x" * BYTES)
    with pytest.raises(ValueError, match=r"large.yaml: expected at most 1 MiB"):
        read_yaml(file)
    file.write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match=r"no UTF-8"):
        read_yaml(file)
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "preset.yaml")
    with pytest.raises(ValueError, match=r"preset\.yaml: cannot be read \(it is no file\)"):
        read_yaml(tmp_path / "preset.yaml")


def test_an_argument_is_read_in_the_same_way() -> None:
    assert parse_pairs(["size=9", "layouts=null", "x=[1, 2]"]) == {"size": 9, "layouts": None, "x": [1, 2]}
    for wrong in ("a={b", "a=" + "[" * 1000, "a={b: 1, b: 2}"):
        with pytest.raises(ValueError, match=r"^a: "):
            parse_pairs([wrong])


COMMANDS: dict[str, tuple[str, list[str]]] = {
    "preset": ("file.yaml", ["train", "file.yaml"]),
    "suite": ("file.yaml", ["bench", "memory", "--suite", "file.yaml"]),
    "offline suite": ("file.yaml", ["bench", "offline", "--suite", "file.yaml"]),
    "plot": ("run/config.yaml", ["plot", "run", "--file", "x.png"]),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    PPO("CartPole-v1", width=8, layers=1, horizon=8, num_envs=2, minibatches=1).save(folder)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("text", [BOMBS["aliases"], DEEP["flow"], TWICE[0]], ids=["aliases", "deep", "twice"])
def test_a_command_answers_in_one_line(
    name: str,
    text: str,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    file, command = COMMANDS[name]
    if "/" in file:
        Path("run").mkdir()
        for path in saved.iterdir():
            (Path("run") / path.name).write_bytes(path.read_bytes())
        (Path("run") / "metrics.csv").write_text("time/total_timesteps,rollout/ep_rew_mean\n1,1\n2,2\n")
    Path(file).write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(command)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and Path(file).name in said


@pytest.mark.parametrize("text", [BOMBS["aliases"], DEEP["flow"], TWICE[0]], ids=["aliases", "deep", "twice"])
def test_a_run_does_not_read_its_config_which_is_for_people(
    text: str, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "run")
    for command in (["evaluate", "run", "--episodes", "2"], ["train", "--resume", "run", "--total-timesteps", "32"]):
        Path("run/config.yaml").write_text(text)
        main(command)
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlmin: warning: ")]
        assert "run/config.yaml was edited after training" in said


@pytest.mark.parametrize("entry", ["tasks: {a: 3}", "tasks: {1: {}}", "tasks: {a: {}}\nsettings: [1]"])
def test_a_suite_of_another_form_is_one_line(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, more in (("memory", ""), ("offline", "\nagents: {x: {}}")):
        Path("suite.yaml").write_text(entry + more)
        with pytest.raises(SystemExit):
            main(["bench", kind, "--suite", "suite.yaml"])
        assert "suite.yaml: expected the settings of a name as a mapping" in capsys.readouterr().err


def test_without_the_fast_parser_it_says_the_same() -> None:
    """PyYAML may have been built without libyaml."""
    code = "import yaml, sys; del yaml.CSafeLoader; from rlmin.files.read_yaml import parse_yaml\n"
    code += "assert parse_yaml('a: [1, {b: 2}]', where='x') == {'a': [1, {'b': 2}]}\n"
    code += "for text in (sys.argv[1:]):\n  try: parse_yaml(text, where='x')\n  except ValueError as e: print(e)\n"
    texts: list[Any] = [BOMBS["aliases"], BOMBS["merged"], DEEP["just too deep"], TWICE[0], WRONG["tag"]]
    done = subprocess.run([sys.executable, "-c", code, *texts], capture_output=True, text=True, check=True, timeout=120)
    assert [line.split("(")[0] for line in done.stdout.splitlines()] == [
        "x: expected at most 100,000 values, aliases counted as what they stand for",
        "x: expected at most 100,000 values, aliases counted as what they stand for",
        "x: expected values at most 50 deep",
        "x: not readable as YAML ",
        "x: not readable as YAML ",
    ]


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "2001-01-01", "[a]"])
def test_a_setting_whose_name_is_no_text_is_one_error(key: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"? {key}\n: 2\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: "):
        read_preset(str(tmp_path / "mine.yaml"))
