"""Films of a policy at play: whole episodes, through gymnasium's own recorder, as real files or not at all."""

import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from large import need

from rlmin import PPO, DecisionAgent
from rlmin.cli import main
from rlmin.commands.film import film
from rlmin.data import Episode
from rlmin.evaluation.evaluate import evaluate
from rlmin.vector import adapt
from rlmin.vector.arena import Arena
from rlmin.vector.make import make_vec
from rlmin.wrappers.shift import Shift

moviepy, ffmpeg = need("moviepy"), need("imageio_ffmpeg")
pytestmark = pytest.mark.needs("moviepy")

LENGTH = 4  # of the corridor: an episode of a policy that stands still lasts one step more


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": LENGTH}, width=8, num_envs=2, horizon=4, seed=0)
    agent.save("run")
    return Path("run")


def frames(file: Path) -> int:
    with moviepy.VideoFileClip(str(file)) as clip:
        assert clip.get_frame(0).std() > 0, "a picture of something"
    return int(ffmpeg.count_frames_and_secs(str(file))[0])


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*.mp4"))


def test_one_file_holds_every_episode_and_a_folder_a_file_each(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arena = Arena(id="rlmin/TMaze-v0", kwargs={"length": LENGTH})
    agent = PPO.load(run)
    made = film(agent, arena, Path("deep/all.mp4"), episodes=2)
    assert made.files == (Path("deep/all.mp4"),) and len(made.returns) == 2
    each = film(agent, arena, Path("each"), episodes=2)
    assert [file.name for file in each.files] == [f"film-episode-{i}.mp4" for i in range(2)]
    assert each.returns == made.returns
    assert frames(made.files[0]) == sum(frames(file) for file in each.files) >= 2 * 2

    main(["evaluate", str(run), "--episodes", "4", "--video", "told.mp4"])
    said = capsys.readouterr().out
    assert said.startswith("return ") and "filmed, return " in said and said.endswith(": told.mp4\n")
    assert files() == ["deep/all.mp4", *(str(file) for file in each.files), "told.mp4"]
    assert list(Path().rglob(".film*")) == []


def test_what_is_filmed_is_what_an_evaluation_plays(run: Path) -> None:
    agent = PPO("CartPole-v1", width=8, num_envs=2, horizon=4, seed=1)
    expected = evaluate(agent.policy, adapt(make_vec("CartPole-v1", 1)), episodes=2, seed=5)
    made = film(agent, Arena(id="CartPole-v1"), Path("pole"), episodes=2, seed=5)
    assert list(made.returns) == expected.returns.tolist()
    for file, length in zip(made.files, expected.lengths, strict=True):
        assert length <= frames(file) <= length + 1, "at 50 a second moviepy may round the last one away"
    shifted = film(agent, Arena(id="CartPole-v1", shift=Shift(sticky=0.9)), Path("sticky.mp4"), episodes=2, seed=5)
    assert shifted.returns != made.returns


def test_a_decision_agent_is_filmed_aiming(run: Path) -> None:
    space = make_vec("CartPole-v1", 1).single_observation_space
    episodes = [Episode([space.sample() for _ in range(n + 1)], [0] * n, [1.0] * n, True) for n in (3, 9)]
    agent = DecisionAgent(episodes, env="CartPole-v1", width=8)
    made = film(agent, Arena(id="CartPole-v1"), Path("aims.mp4"), target_return=4.0)
    assert made.returns[0] <= frames(made.files[0]) <= made.returns[0] + 1, "moviepy may round the last one away"


def test_the_film_aims_for_the_first_target_asked_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = make_vec("CartPole-v1", 1).single_observation_space
    episodes = [Episode([space.sample() for _ in range(n + 1)], [0] * n, [1.0] * n, True) for n in (3, 9)]
    DecisionAgent(episodes, env="CartPole-v1", width=8).save("aims")
    aims: list[Any] = []

    def watched(*what: Any, target_return: float | None = None, **settings: Any) -> Any:
        aims.append(target_return)
        return film(*what, target_return=target_return, **settings)

    monkeypatch.setattr("rlmin.commands.evaluate.film", watched)
    command = ["evaluate", "aims", "--episodes", "2", "--video", "aims.mp4"]
    score = ["--target-score", "50", "25", "--reference", "2", "10"]
    for asked in ([], score, [*score, "--target-return", "4"]):
        main([*command, *asked])
    assert aims == [None, 6.0, 4.0]
    with pytest.raises(SystemExit):
        main([*command, "--env", "CartPole-v0", "--target-score", "50"])
    assert "target_score=[50.0]" in capsys.readouterr().err and len(aims) == 3


class Undrawn(gym.Env[np.ndarray, np.int64]):
    """As where there is no screen, or nothing to see."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def __init__(self, **options: Any) -> None:
        self.broken, self.render_mode = options["broken"], options.get("render_mode")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        if self.broken:
            raise KeyError("no screen")
        return "a word"


def test_an_environment_that_makes_no_pictures_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        gym.registry, "Undrawn-v0", EnvSpec("Undrawn-v0", entry_point=Undrawn, disable_env_checker=True)
    )
    agent = PPO("Undrawn-v0", env_kwargs={"broken": False}, width=8, num_envs=1)
    for broken, message in {
        True: "cannot be drawn here (KeyError: 'no screen')",
        False: "from render(), got str",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            film(agent, Arena(id="Undrawn-v0", kwargs={"broken": broken}), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


BAD = {
    "kind": (["--video", "film.avi"], r"film\.avi: expected a file that ends in \.mp4, or a folder"),
    "none": (
        ["--video", "film.mp4", "--video-episodes", "0"],
        "video_episodes: expected a whole number of at least 1, got 0",
    ),
    "endless": (["--video", "film.mp4", "--max-steps", "2"], "the episode has not ended after 2 steps"),
    "pictures": (["--video", "film.mp4", "--env", "popgym-RepeatPreviousEasy-v0"], "RepeatPreviousEasy-v0: "),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_filmed_is_said_and_leaves_nothing(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = BAD[name]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run), "--episodes", "4", *arguments])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert files() == [] and list(Path().rglob(".film*")) == []


def test_without_moviepy_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "moviepy", None)
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--episodes", "4", "--video", "film.mp4"])
    assert 'pip install "rlmin[video]"' in capsys.readouterr().err
