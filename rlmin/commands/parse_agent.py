"""Parsing an agent's settings together with the options of the encoder that they name."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from rlmin.agents.ppo_config import PPOConfig
from rlmin.checks import check_names
from rlmin.commands.arguments import flag, options_of, values
from rlmin.commands.parse import parse
from rlmin.encoders import CELLS
from rlmin.encoders.cell import option_names
from rlmin.policy.config import PolicyConfig
from rlmin.settings import check_setting, field_types, from_text
from rlmin.settings.sb3_convert import from_sb3
from rlmin.settings.sb3_names import SB3_NAMES, answer

Config = TypeVar("Config", bound=PolicyConfig)


def parse_agent(
    kind: type[Config],
    arguments: Sequence[str],
    *,
    prog: str,
    others: Collection[str] = (),
) -> Config:
    """The settings that the arguments of a command give: see `parse`.

    Args:
        kind: class of the settings.
        arguments: without the command; options of the encoder that `--encoder` names may be among them, and for PPO
            stable-baselines3's names of its settings.
        prog, others: as for `parse`.

    Raises:
        ValueError: no such encoder, an option that is not its own, or see `parse`.
    """
    if issubclass(kind, PPOConfig):
        arguments = _translate(kind, arguments)
    encoder = [kind.encoder, *values(arguments, "--encoder")][-1]
    check_names("encoder", [encoder], CELLS)
    cell, own = CELLS[encoder], [setting.name for setting in fields(kind)]
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in option_names() and name not in own:
            cell.check_options((name,))
    carrier: Any = cast(Any, _carrier)(kind, cell.options)
    given: Any = parse(carrier, arguments, prog=prog, others=others)
    settings = {name: getattr(given, name) for name in own if name != "encoder_options"}
    return kind(**settings, encoder_options={n: getattr(given, n) for n in cell.option_names if n not in own})


def _translate(kind: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments, in which stable-baselines3's names are settings.

    Raises:
        ValueError: one has no equivalent, see `from_sb3`.
    """
    known, kept, theirs = {*field_types(kind), *option_names()}, list[str](), dict[str, Any]()
    for option, texts in options_of(arguments):
        name = option.removeprefix("--").replace("-", "_")
        if name not in SB3_NAMES or name in known:
            kept += ([option] if option else []) + texts
        elif name == "policy_kwargs" or not texts:
            raise ValueError(f"no option {option!r}: {answer(name, known)}")
        else:
            theirs[name] = _value(name, texts[0])
    if not theirs:
        return list(arguments)
    sizes = {name: [getattr(kind, name), *values(kept, flag(name))][-1] for name in ("num_envs", "horizon")}
    plain = from_sb3(
        theirs, known, **{name: check_setting(name, from_text(str(x), int), int) for name, x in sizes.items()}
    )
    return [*kept, *(word for name, value in plain.settings.items() for word in (flag(name), str(value)))]


def _value(name: str, text: str) -> Any:
    """The value that a word after one of stable-baselines3's names stands for."""
    here = SB3_NAMES[name].setting
    if name == "policy" or (here is None and text not in ("True", "False", "None")):
        return text
    return from_text(text, bool | float | None)


@functools.cache
def _carrier(kind: Any, options: Any) -> Any:
    """The class to parse into: the settings of `kind` and the further options of a cell, unchecked as a whole.

    The checks of `kind` would be printed by the parser in a box of many lines. An option may have the name of a
    property of `kind`, which has no setter; so its default stands before that.
    """
    defaults = {} if options is None else {option.name: option.default for option in fields(options)}
    body = defaults | {"__doc__": kind.__doc__, "__module__": __name__, "__post_init__": lambda self: None}
    bases = (kind,) if options is None else (kind, options)
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, bases, body))
