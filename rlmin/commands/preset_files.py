"""Presets: YAML files in rlmin/configs, or the user's own."""

import re
from itertools import takewhile
from pathlib import Path

from rlmin.checks import check_names
from rlmin.runs.policy_zoo import read_score, zoo_names

MEASURED = re.compile(r"^# Measured: (\d+ to \d+ s on one thread), \d+ seeds\.$", re.MULTILINE)
"""The time of a preset, as its file says it; a test holds it against benchmarks/results."""
ENV_ID = re.compile(r"-v\d+$|[/:]")
"""Words that name an environment or a dataset, not a preset."""
PRESETS = Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def describe_presets() -> list[str]:
    """A line for each preset: name, first sentence of its file, steps, measured time, score in the zoo."""
    names = preset_names()
    wide = max(map(len, names))
    return [f"{name:{wide}}  {_describe_preset(name)}" for name in names]


def _describe_preset(name: str) -> str:
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))
    steps = int(re.findall(r"^total_timesteps: ([\d_]+)$", text, re.MULTILINE)[0])
    score = f"; return {read_score(name)['mean_return']:.4g} (zoo)" if name in zoo_names() else ""
    time = f" in {found[1]}" if (found := MEASURED.search(text)) else ""
    return f"{comment.split('. ')[0].rstrip('.')}. {steps:,} steps{time}{score}"


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
