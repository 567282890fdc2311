"""The presets that there are: YAML files in rlmin/configs, or the user's own."""

import re
from itertools import takewhile
from pathlib import Path

from rlmin.checks import check_names

ENV_ID = re.compile(r"-v\d+$|[/:]")
"""Words that name an environment, or a dataset, and no preset."""
PRESETS = Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def describe_presets() -> list[str]:
    """A line a preset: its name, and the first sentence of the comment that its file begins with."""
    names = preset_names()
    wide = max(map(len, names))
    return [f"{name:{wide}}  {_first_sentence(PRESETS / f'{name}.yaml')}" for name in names]


def _first_sentence(path: Path) -> str:
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines).split(". ")[0].rstrip(".") + "."


def preset_path(name: str) -> Path:
    """The file of a preset's name, or of a path that ends in .yaml.

    Raises:
        ValueError: neither exists; the message names the nearest preset.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"{name}: no such file")
        return Path(name)
    if ENV_ID.search(name):
        raise ValueError(f"no preset {name!r}; an environment is given by its option: --env {name}")
    check_names("preset", [name], preset_names())
    return PRESETS / f"{name}.yaml"
