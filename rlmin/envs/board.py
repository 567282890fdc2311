"""What a person sees of a game: rows of coloured cells and a caption, as text or as a picture."""

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
CELL = 40  # pixels


@dataclass(frozen=True, slots=True)
class Cell:
    """A square: up to three characters on a colour of `COLOURS`."""

    text: str = ""
    colour: str = "empty"


@dataclass(frozen=True, slots=True)
class Board:
    """Rows of cells from the top down, and lines of text below: what was seen, done, won."""

    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def text(self) -> str:
        """Cells in columns, then the caption."""
        width = max([1, *(len(cell.text) for row in self.rows for cell in row)])
        lines = [" ".join(f"{cell.text or '.':>{width}}" for cell in row) for row in self.rows]
        return "\n".join([*lines, self.caption] if self.caption else lines)

    def picture(self) -> Picture:
        """[height, width, 3]; the caption stands below the cells."""
        from PIL import Image, ImageDraw, ImageFont  # here, because only pictures need it

        columns = max([1, *(len(row) for row in self.rows)])
        lines = self.caption.splitlines()
        font = ImageFont.load_default(CELL * 0.4)
        width = max(columns * CELL, *(int(font.getlength(line)) + 16 for line in [*lines, ""]))
        image = Image.new("RGB", (width, len(self.rows) * CELL + 20 * len(lines) + 8), (255, 255, 255))
        pen = ImageDraw.Draw(image)
        for y, row in enumerate(self.rows):
            for x, cell in enumerate(row):
                left, top = x * CELL, y * CELL
                pen.rectangle((left + 1, top + 1, left + CELL - 2, top + CELL - 2), fill=COLOURS[cell.colour])
                ink = (255, 255, 255) if sum(COLOURS[cell.colour]) < 380 else (20, 20, 20)
                pen.text((left + CELL / 2, top + CELL / 2), cell.text, fill=ink, font=font, anchor="mm")
        for i, line in enumerate(lines):
            pen.text((8, len(self.rows) * CELL + 4 + 20 * i), line, fill=(20, 20, 20), font=font)
        return np.asarray(image)
