"""Pictures of the native games for the gallery in the documentation: one frame of each, after a few steps.

    python benchmarks/gallery.py                  every game
    python benchmarks/gallery.py --games t_maze   some of them

Writes docs/images/games/GAME.png. The frames are the games' own `render`, cropped to what is on them. Draws and actions
are seeded, so the same code draws the same pictures.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops

from rlmin.envs import GAMES
from rlmin.envs.tensor_env import TensorEnv

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "games"
STEPS = {"t_maze": 3, "endless_t_maze": 4, "grid_memory": 6, "delayed_match": 6, "pendulum": 8, "cart_pole": 8}
STEPS |= {"associative_recall": 9, "battleship": 30}
"""Game -> number of steps before the frame; `USUAL` for the others."""
USUAL = 12
MARGIN, COLOURS = 8, 32


def play(file: str, steps: int) -> TensorEnv:
    """The first variant of a game after a number of random actions."""
    module = importlib.import_module(f"rlmin.envs.{file}")
    variant = next(iter(module.VARIANTS.values()))
    env: TensorEnv = getattr(module, GAMES[file])(1, render_mode="rgb_array", **variant.options)
    env.reset(seed=3)
    env.single_action_space.seed(3)
    for _ in range(steps):
        env.step(torch.as_tensor(np.asarray(env.single_action_space.sample()))[None])
    return env


def crop(frame: np.ndarray) -> Image.Image:
    """The part of a white picture that is not white, with a margin, in few colours."""
    image = Image.fromarray(frame)
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    left, top, right, bottom = box or (0, 0, *image.size)
    content = image.crop((left, top, right, bottom))
    framed = Image.new("RGB", (content.width + 2 * MARGIN, content.height + 2 * MARGIN), "white")
    framed.paste(content, (MARGIN, MARGIN))
    return framed.quantize(COLOURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="*", default=list(GAMES), choices=list(GAMES), metavar="GAME")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in parser.parse_args().games:
        frames = play(file, STEPS.get(file, USUAL)).render()
        assert frames is not None
        path = FOLDER / f"{file}.png"
        crop(frames[0]).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1024:.1f} KB")


if __name__ == "__main__":
    main()
