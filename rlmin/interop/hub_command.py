"""`rlmin hub card` and `rlmin hub push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmin.checks import check_names
from rlmin.commands.parse import parse
from rlmin.interop.hub import push_to_hub
from rlmin.interop.model_card import write_card
from rlmin.settings import CountOrZero, Positional, Settings

USAGE = """usage: rlmin hub card RUN [--episodes N] [--trust]
       rlmin hub push RUN USER/NAME [--private] [--with-learner] [--trust]"""


@dataclass(frozen=True, kw_only=True)
class Card(Settings):
    """Write the model card of a run: README.md in its folder."""

    run: Positional[Path]  # Run folder
    episodes: CountOrZero = 100  # Number of episodes per target to evaluate the greedy policy on; 0: no scores
    trust: bool = False  # Whether the module that the run's environment id names is imported, whose code then runs


@dataclass(frozen=True, kw_only=True)
class Push(Settings):
    """Push a run to the Hugging Face hub: weights, settings, metrics, curve and card; log in with `hf auth login`."""

    run: Positional[Path]  # Run folder
    repo_id: Positional[str]  # Repository USER/NAME; created if necessary
    private: bool = False  # Whether a new repository is private
    with_learner: bool = False  # Whether to push the optimizer's state, which resuming needs
    trust: bool = False  # Whether the module that the run's environment id names is imported for the card


def run_hub(arguments: list[str]) -> str:
    """Run `rlmin hub ...`; returns the text to print."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return USAGE
    check_names("hub command", arguments[:1], ["card", "push"])
    if arguments[0] == "card":
        given = parse(Card, arguments[1:], prog="rlmin hub card", switches=True)
        return str(write_card(given.run, episodes=given.episodes, trust=given.trust))
    push = parse(Push, arguments[1:], prog="rlmin hub push", switches=True)
    settings: dict[str, Any] = {name: getattr(push, name) for name in ("private", "with_learner", "trust")}
    return push_to_hub(push.run, push.repo_id, **settings)
