"""Search spaces: the settings that a search changes, and their ranges.

lr: {low: 1e-4, high: 3e-3, log: true}     a number in a range; whole numbers at both ends: a whole number
width: [32, 64, 128]                       one of these
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlmin.checks import check_names, require
from rlmin.encoders.cell import select_options
from rlmin.files.read_yaml import read_yaml
from rlmin.settings import from_text

SPACES = Path(__file__).parent.parent.parent / "configs" / "spaces"
KEYS = ("low", "high", "log", "step")

Space = Mapping[str, "Numbers | Choices"]


@dataclass(frozen=True)
class Numbers:
    """A range of numbers."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that the setting has to take."""
        return self.low, self.high

    def distribution(self) -> Any:
        """The range as Optuna has it."""
        kinds = require("optuna", extra="tune").distributions
        if isinstance(self.low, int) and isinstance(self.high, int):
            return kinds.IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return kinds.FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Choices:
    """Values to choose from."""

    values: tuple[Any, ...]

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that the setting has to take."""
        return self.values

    def distribution(self) -> Any:
        """The choice as Optuna has it."""
        return require("optuna", extra="tune").distributions.CategoricalDistribution(self.values)


def read_space(name: str, config: Any) -> Space:
    """A search space, each value of which the settings of a run take.

    Args:
        name: of an algorithm, or a .yaml file.
        config: of the run; its other settings stay.

    Raises:
        ValueError: there is none, or an entry does not name a setting of the algorithm.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SPACES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"{name}: no such file" if path == Path(name) else f"no search space for {name!r}: name a file"
        )
    entries = read_yaml(path)
    if not isinstance(entries, dict) or not entries or not all(isinstance(key, str) for key in entries):
        raise ValueError(f"{path.name}: expected settings as `lr: {{low: 1e-4, high: 1e-3}}` or `width: [32, 64]`")
    try:
        check_names("setting of the agent", entries, settings_of(config))
        space = {key: _read_entry(key, entry) for key, entry in entries.items()}
        for key, dimension in space.items():
            for value in dimension.examples:
                change_settings(config, {key: value})
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return space


def change_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A run's config with the settings of a trial; another encoder does not get the options that it does not have."""
    kept = select_options(config.encoder_options, settings.get("encoder", config.encoder))
    return replace(config, encoder_options=kept).with_settings(settings)


def settings_of(config: Any) -> list[str]:
    """Settings that a search may change: those of the agent, and the options of its encoder."""
    agent = config.agent_settings
    own = [name for name in vars(agent) if name != "encoder_options"]
    return [*own, *(name for name in agent.cell.option_names if name not in own)]


def _read_entry(key: str, entry: Any) -> Numbers | Choices:
    if isinstance(entry, list) and len(entry) > 1:
        values = tuple(_plain(value) for value in entry)
        if all(isinstance(value, str | int | float | None) for value in values):
            return Choices(values)
    if not isinstance(entry, dict):
        raise ValueError(f"{key}: expected {{low: .., high: ..}} or a list of at least two values, got {entry!r:.60}")
    check_names(f"entry of {key}", entry, KEYS)
    found: dict[str, Any] = {name: _plain(value) for name, value in entry.items()}
    low: Any = found.get("low")
    high: Any = found.get("high")
    log: Any = found.get("log", False)
    step: Any = found.get("step")
    if not (_is_number(low) and _is_number(high) and low < high):
        raise ValueError(f"{key}: expected numbers low < high, got low={low!r}, high={high!r}")
    if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
        raise ValueError(f"{key}: expected log: true with low > 0 and without step, got log={log!r}, low={low!r}")
    if step is not None and not (_is_number(step) and step > 0):
        raise ValueError(f"{key}: expected a step above 0, got {step!r}")
    return Numbers(low, high, log, step)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _plain(value: Any) -> Any:
    """YAML takes 1e-4 for text."""
    return from_text(value, float) if isinstance(value, str) else value
