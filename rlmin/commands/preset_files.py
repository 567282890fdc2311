"""The presets that there are: YAML files in rlmin/configs, or the user's own."""

from pathlib import Path

from rlmin.checks import check_names

PRESETS = Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset's name, or of a path that ends in .yaml.

    Raises:
        ValueError: neither exists; the message names the nearest preset.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ValueError(f"{name}: no such file")
        return Path(name)
    check_names("preset", [name], preset_names())
    return PRESETS / f"{name}.yaml"
