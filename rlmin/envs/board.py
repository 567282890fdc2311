"""What a person sees of a game: rows of coloured cells and a caption, as text or as a picture."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Picture = np.ndarray[Any, np.dtype[np.uint8]]

COLOURS = {
    "empty": (236, 236, 232),
    "wall": (96, 96, 96),
    "hidden": (186, 194, 206),
    "agent": (31, 119, 180),
    "goal": (44, 160, 44),
    "bad": (214, 39, 40),
    "cue": (255, 187, 60),
    "seen": (255, 243, 196),
    "dark": (40, 44, 52),
}
WIDTH, HEIGHT = 640, 480  # pixels of every picture
CELL, LINE = 40, 20  # pixels: a cell at most, and a line of the caption


@dataclass(frozen=True, slots=True)
class Cell:
    """A square: up to three characters on a colour of `COLOURS`."""

    text: str = ""
    colour: str = "empty"


@dataclass(frozen=True, slots=True)
class Board:
    """Rows of cells from the top down, and lines of text below: what was seen, done and won."""

    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def text(self) -> str:
        """Cells in columns, then the caption."""
        width = max([1, *(len(cell.text) for row in self.rows for cell in row)])
        lines = [" ".join(f"{cell.text or '.':>{width}}" for cell in row) for row in self.rows]
        return "\n".join([*lines, self.caption] if self.caption else lines)

    def picture(self) -> Picture:
        """[HEIGHT, WIDTH, 3], whatever is on it, as a video needs it; the caption stands below the cells."""
        from PIL import Image, ImageDraw, ImageFont  # here, because only pictures need it

        font = ImageFont.load_default(LINE * 0.7)
        letters = int((WIDTH - 16) / font.getlength("0"))
        lines = [part for line in self.caption.splitlines() for part in textwrap.wrap(line, letters) or [""]]
        columns = max([1, *(len(row) for row in self.rows)])
        below = LINE * len(lines) + 8
        side = min(CELL, WIDTH // columns, (HEIGHT - below) // max(1, len(self.rows)))
        image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
        pen = ImageDraw.Draw(image)
        for y, row in enumerate(self.rows):
            for x, cell in enumerate(row):
                _draw(pen, cell, (x * side, y * side), side, ImageFont.load_default(max(side * 0.4, 6)))
        for i, line in enumerate(lines):
            pen.text((8, len(self.rows) * side + 4 + LINE * i), line, fill=(20, 20, 20), font=font)
        return np.asarray(image)


def _draw(pen: Any, cell: Cell, corner: tuple[int, int], side: int, font: Any) -> None:
    left, top = corner
    ground = COLOURS[cell.colour]
    pen.rectangle((left + 1, top + 1, left + max(side - 2, 1), top + max(side - 2, 1)), fill=ground)
    ink = (255, 255, 255) if sum(ground) < 380 else (20, 20, 20)
    pen.text((left + side / 2, top + side / 2), cell.text, fill=ink, font=font, anchor="mm")
