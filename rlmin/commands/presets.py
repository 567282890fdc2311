"""Presets: YAML files of differences from the default settings, and how they become arguments."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from rlmin.commands.preset_files import PRESETS as PRESETS
from rlmin.commands.preset_files import preset_path as preset_path
from rlmin.commands.train_config import PAIRS, DecisionTrainConfig, TrainConfig, run_class, settable
from rlmin.files.read_yaml import parse_yaml, read_yaml
from rlmin.files.trust import from_file
from rlmin.settings.sb3_names import check_settings


def read_preset(name: str) -> dict[str, Any]:
    """The settings in a preset or file: differences from the defaults. A preset with a `dataset` is for logged data.

    The `env` of a file is marked as data, see `rlmin.files.trust`.

    Raises:
        ValueError: no such preset, not a mapping, or an unknown setting.
    """
    path = preset_path(name)
    settings = read_yaml(path) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path.name}: expected settings as `key: value`, got {type(settings).__name__}")
    try:
        check_settings(settings, settable(config_class(settings, settings.get("algorithm"))))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if settings.get("env") is not None:
        settings["env"] = from_file(settings["env"], trust=path.parent == PRESETS, where=path.name)
    for key in PAIRS:
        if isinstance(settings.get(key), dict):
            settings[key] = [f"{name}={_as_text(value)}" for name, value in settings[key].items()]
    return settings


def config_class(settings: Collection[str], algorithm: str | None = None) -> Any:
    """The class that has settings of these names; None: PPO's, or the decision agent's if there is a dataset.

    Raises:
        ValueError: there is no such algorithm.
    """
    if algorithm is not None:
        return run_class(algorithm)
    return DecisionTrainConfig if "dataset" in settings else TrainConfig


def preset_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The settings as command-line arguments, so that one parser reads both and 1e-4 is a number.

    Raises:
        ValueError: a value looks like an option, such as "--trust", which only the user may give.
    """
    arguments: list[str] = []
    for key, value in settings.items():
        words = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        for word in words:
            if word.startswith("-") and not re.match(r"-(\.?\d|inf|nan)", word):
                raise ValueError(f"{key}: expected a value, got {word!r:.80}")
        arguments += ["--" + key.replace("_", "-"), *words]
    return arguments


def _as_text(value: Any) -> str:
    """A value as text from which YAML makes it again: 1e-05 would be text, and None too."""
    try:
        again = parse_yaml(str(value), where="value")
        if type(again) is type(value) and again == value:
            return str(value)
    except ValueError:
        pass
    return str(yaml.safe_dump(value, default_flow_style=True, width=2**20)).removesuffix("\n").removesuffix("\n...")
