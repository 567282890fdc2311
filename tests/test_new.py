"""`rlmin new` writes what is trained and tested as it stands; `rlmin completion` what a shell takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unix import BASH

from rlmin.cli import COMMANDS, main
from rlmin.commands.completion import completion_words, write_completion

ENV = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
SHORT = "--total-timesteps 64 --horizon 8 --width 8 --evaluations 0 --eval-episodes 2".split()  # noqa: SIM905


def run_test(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "test_lamp.py", *words]
    return subprocess.run(command, capture_output=True, text=True, env=ENV)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("env", "lamp:Lamp-v0"),
        pytest.param("encoder", "lamp:rlmin/TMaze-v0 --encoder lamp", marks=pytest.mark.slow),
    ],
)
def test_a_skeleton_passes_its_test_and_is_trained(
    kind: str, words: str, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", kind, "lamp"])
    assert f"train it: rlmin train --env {words}" in capsys.readouterr().out
    done = run_test("-W", "error::UserWarning")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    main(["train", "--env", *words.split(), *SHORT])
    with pytest.raises(SystemExit, match="2"):
        main(["new", kind, "lamp"])
    assert "lamp.py: is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_broken_skeleton_fails_its_test(reader: Path) -> None:
    main(["new", "encoder", "lamp"])
    text = Path("lamp.py").read_text()
    assert "wipe(state, start)" in text
    Path("lamp.py").write_text(text.replace("wipe(state, start)", "state"))
    assert run_test("-k", "steps_give").returncode == 1


@pytest.mark.parametrize("name", ["Lamp", "my-lamp", "class", "1st", ""])
def test_a_name_that_is_none_is_refused(name: str, reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["new", "env", name])
    assert "name" in capsys.readouterr().err and not list(Path().iterdir())


@pytest.mark.parametrize("words", ["env numpy", "env random", "encoder gru", "encoder yaml"])
def test_a_module_that_would_hide_another_is_not_written(
    words: str, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["new", *words.split()])
    assert "which it would hide; choose another" in capsys.readouterr().err and not list(Path().iterdir())


def test_what_is_missing_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (("new", "rlmin: new: kind is missing: "), ("new env", "rlmin: new: name is missing: ")):
        with pytest.raises(SystemExit, match="2"):
            main(words.split())
        assert capsys.readouterr().err.startswith(said)


@BASH
def test_a_shell_completes_commands_options_and_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = tmp_path / "rlmin.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*words: str) -> list[str]:
        typed = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        line = ["bash", "-c", f'source {script}; {typed}; _rlmin; echo "${{COMPREPLY[@]}}"']
        return subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()

    assert complete("rlmin", "pl") == ["plot"] and complete("rlmin", "train", "tm") == ["tmaze"]
    assert {"--entropy", "--entropy-final"} == set(complete("rlmin", "train", "--entr"))
    assert complete("rlmin", "plot", "--relative") == ["--relative-to"]
    assert complete("rlmin", "new", "en") == ["env", "encoder"]
    words = completion_words(COMMANDS)
    assert set(words) == set(COMMANDS)
    fish = write_completion("fish", words)
    assert "complete -c rlmin -n '__fish_seen_subcommand_from compare' -l threshold" in fish
    for shell in ("zsh", "fish"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", "-c", write_completion(shell, words)], check=True)
