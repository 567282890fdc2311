"""Arguments of an agent's settings, with the options of the encoder that they name beside them."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from rlmin.checks import check_names
from rlmin.commands.parse import parse, values
from rlmin.encoders import CELLS
from rlmin.encoders.cell import option_names
from rlmin.policy.config import PolicyConfig

Config = TypeVar("Config", bound=PolicyConfig)


def parse_agent(
    kind: type[Config],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    others: Collection[str] = (),
) -> Config:
    """The settings that the arguments of a command give: see `parse`.

    Args:
        kind: of the settings.
        arguments: without the command; options of the encoder that `--encoder` names may be among them.
        prog, description, others: as for `parse`.

    Raises:
        ValueError: no such encoder, an option that is not its own, or see `parse`.
    """
    encoder = [kind.encoder, *values(arguments, "--encoder")][-1]
    check_names("encoder", [encoder], CELLS)
    cell, own = CELLS[encoder], [setting.name for setting in fields(kind)]
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in option_names() and name not in own:
            cell.check_options((name,))
    carrier: Any = cast(Any, _carrier)(kind, cell.options)
    given: Any = parse(carrier, arguments, prog=prog, description=description, others=others)
    settings = {name: getattr(given, name) for name in own if name != "encoder_options"}
    return kind(**settings, encoder_options={n: getattr(given, n) for n in cell.option_names if n not in own})


@functools.cache
def _carrier(kind: Any, options: Any) -> Any:
    """What is parsed: the settings of `kind` and the further options of a cell, unchecked as a whole.

    The parser would put what `kind` has to say of several settings together into a box of many lines.
    """
    body = {"__doc__": kind.__doc__, "__module__": __name__, "__post_init__": lambda self: None}
    bases = (kind,) if options is None else (kind, options)
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, bases, body))
