"""Restoring an agent: from the files of a folder to an object of the class that it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlmin.agents.schema import read_settings
from rlmin.checks import check_names
from rlmin.distributed import ALONE, Ranks
from rlmin.files.trust import mark_header
from rlmin.policy.config import check_registered
from rlmin.runs.checkpoint import find_folder, read_newest
from rlmin.runs.hub_snapshot import fetch, is_address
from rlmin.settings.boundary import checked
from rlmin.vector.make import import_provider

if TYPE_CHECKING:  # an Agent can be loaded by its class
    from rlmin.agents.agent import Agent


@checked
def restore(
    kinds: Mapping[str, type["Agent"]],
    folder: str | Path,
    *,
    env: Any = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    ranks: Ranks = ALONE,
) -> "Agent":
    """The agent saved in `folder`, one of `kinds`; see `rlmin.load` for the other arguments and errors."""
    folder = fetch(folder) if is_address(folder) else find_folder(folder)
    header, tensors = read_newest(Path(folder))
    mark_header(header, trust=trust, where=str(folder))
    check_names("agent", [header["agent"]], kinds)
    kind = kinds[header["agent"]]
    if trust and header["env"]["id"] is not None:
        import_provider(header["env"]["id"])  # which may register the encoder
    check_registered(header["config"].get("encoder"))
    try:
        config = read_settings(kind, header, tensors)
    except ValueError as error:
        raise ValueError(f"{folder}: damaged, {error}") from None
    agent = kind.from_spaces(
        header["observation_space"],
        header["action_space"],
        config=config,
        seed=header["seed"],
        device=device,
        env_spec=header["env"],
        ranks=ranks,
    )
    agent.trust = trust
    agent.restore(header, tensors)
    if env is not None:
        agent.adopt({}, env)
        agent.set_env(env)
    return agent
