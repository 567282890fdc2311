"""`rlmin hub card` and `rlmin hub push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from rlmin.checks import check_names
from rlmin.interop.hub import push_to_hub
from rlmin.interop.model_card import write_card

USAGE = """usage: rlmin hub card RUN [--episodes N] [--trust]
       rlmin hub push RUN USER/NAME [--private] [--with-learner] [--trust]"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write the model card of a run: README.md in its folder."""

    run: tyro.conf.Positional[Path]  # the run folder
    episodes: int = 100  # to evaluate the policy greedily on, of each target; 0: no scores
    trust: bool = False  # import the module that the run's environment id names, whose code then runs


@dataclass(frozen=True, kw_only=True)
class Push:
    """Push a run to the Hugging Face hub: weights, settings, metrics, curve and card; log in with `hf auth login`."""

    run: tyro.conf.Positional[Path]  # the run folder
    repo_id: tyro.conf.Positional[str]  # USER/NAME; made where there is none
    private: bool = False  # of a repository that is made
    with_learner: bool = False  # push what going on with the training needs as well
    trust: bool = False  # for the card: import the module that the run's environment id names, whose code then runs


def hub_said(arguments: list[str]) -> str:
    """Run `rlmin hub ...`; what it says."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return USAGE
    check_names("hub command", arguments[:1], ["card", "push"])
    if arguments[0] == "card":
        given = tyro.cli(Card, args=arguments[1:], prog="rlmin hub card")
        return str(write_card(given.run, episodes=given.episodes, trust=given.trust))
    push = tyro.cli(Push, args=arguments[1:], prog="rlmin hub push")
    settings: dict[str, Any] = {name: getattr(push, name) for name in ("private", "with_learner", "trust")}
    return push_to_hub(push.run, push.repo_id, **settings)
