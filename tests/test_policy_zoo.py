"""The zoo that comes with rlmin: every policy loads by its name, is small, and scores what its card says."""

import shutil
from pathlib import Path

import pytest
import torch

from rlmin import load
from rlmin.cli import main
from rlmin.commands.evaluate import evaluate_run
from rlmin.commands.preset_files import describe_presets, preset_names
from rlmin.commands.presets import read_preset
from rlmin.runs.checkpoint import POLICY
from rlmin.runs.policy_zoo import POLICIES, read_score, zoo_folder, zoo_names

NAMES = zoo_names()
EACH, ALL = 200_000, 4_000_000


def test_every_preset_has_a_policy() -> None:
    assert preset_names() == NAMES
    lines = describe_presets()
    assert [line.split()[0] for line in lines] == NAMES
    assert "remember one bit for 50 steps. 1,000,000 steps in " in lines[-1]
    assert lines[-1].endswith(" s on one thread; return 1 (zoo)")


def test_the_zoo_is_small_and_holds_data_alone() -> None:
    files = [path for path in POLICIES.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {POLICY, "score.json", "README.md", "curve.png"}
    assert len(files) == 4 * len(NAMES) > 0
    assert all(path.stat().st_size < EACH for path in files) and sum(path.stat().st_size for path in files) < ALL


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_loads_by_name_and_plays_about_as_well_as_its_card_says(name: str) -> None:
    agent, score = load(f"zoo:{name}"), read_score(name)
    assert agent.env_spec["id"] == read_preset(score["preset"])["env"]
    assert f'rlmin.load("zoo:{name}")' in (text := (zoo_folder(f"zoo:{name}") / "README.md").read_text())
    assert score["command"] in text and f"| {score['mean_return']:.3f} |" in text
    found = evaluate_run(Path(f"zoo:{name}"), episodes=8, num_envs=8)
    assert abs(found.mean_return - score["mean_return"]) <= 0.25 * abs(score["mean_return"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_policy_scores_what_its_card_says(name: str) -> None:
    score = read_score(name)
    found = evaluate_run(Path(f"zoo:{name}"), episodes=score["episodes"], seed=score["seed"])
    assert found.mean_return == pytest.approx(score["mean_return"], rel=0.02, abs=0.01)


def test_a_policy_that_forgot_everything_does_not_pass(tmp_path: Path) -> None:
    agent = load("zoo:cartpole")
    with torch.no_grad():
        for x in agent.policy.parameters():
            x.zero_()
    agent.save(tmp_path / "run")
    assert (
        evaluate_run(tmp_path / "run", episodes=8, num_envs=8).mean_return < 0.5 * read_score("cartpole")["mean_return"]
    )


def test_the_command_line_takes_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["evaluate", "zoo:cartpole", "--episodes", "2"])
    assert "return 500" in capsys.readouterr().out
    main(["list", "zoo"])
    assert capsys.readouterr().out.startswith("zoo:cartpole: return 500.000; rlmin train cartpole --width 48")
    with pytest.raises(SystemExit):
        main(["evaluate", "zoo:cartpol"])
    assert "no policy of the zoo 'cartpol'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_policy_of_the_zoo_is_read_as_any_run_is(tmp_path: Path) -> None:
    shutil.copytree(zoo_folder("zoo:cartpole"), tmp_path / "run")
    content = bytearray((tmp_path / "run" / POLICY).read_bytes())
    content[-1] ^= 1
    (tmp_path / "run" / POLICY).write_bytes(content)
    with pytest.raises(ValueError, match="its content does not match its digest"):
        load(tmp_path / "run")
