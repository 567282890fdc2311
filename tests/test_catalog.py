"""The list of environments: every id, with its spaces, its length and what its returns mean."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from rlmin.envs import GAMES, register
from rlmin.envs.catalog import brief, lines, variants

register()
PICTURES = Path(__file__).parent.parent / "docs" / "images" / "games"


def test_every_id_of_the_library_has_a_line_and_every_game_its_numbers() -> None:
    table = lines()
    listed = {line.split()[0] for line in table[1 : table.index("")]}
    assert listed == {id for id in gym.registry if id.startswith("rlmin/")}
    assert set(dict(variants())) < listed
    line = next(line for line in table if line.startswith("rlmin/RepeatFirstEasy-v0 "))
    assert line.split("  ")[0] == "rlmin/RepeatFirstEasy-v0"
    assert [word for word in line.split() if word in {"51", "-0.50", "1.00"}] == ["51", "-0.50", "-0.50", "1.00"]
    assert table[table.index("") + 1].startswith("random, floor, ceiling: ")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Discrete(4), "4 choices"),
        (spaces.MultiDiscrete([3, 9]), "2 of 9"),
        (spaces.Box(-1, 1, (2, 3)), "2x3 numbers"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(4))), "2 choices + 4 choices"),
        (spaces.Dict(image=spaces.Box(0, 1, (5,))), "image: 5 numbers"),
    ],
)
def test_spaces_are_said_in_a_few_characters(space: gym.Space[object], words: str) -> None:
    assert brief(space) == words


def test_every_game_has_a_small_picture_in_the_gallery() -> None:
    assert {path.stem for path in PICTURES.iterdir()} == set(GAMES)
    for path in PICTURES.iterdir():
        assert path.stat().st_size < 40 * 1024, path
        colours = np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 3, f"{path} is blank"
