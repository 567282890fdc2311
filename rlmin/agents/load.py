"""Loading an agent from its folder."""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents import AGENTS
from rlmin.agents.agent import Agent
from rlmin.agents.schema import read_settings
from rlmin.boundary import checked
from rlmin.checkpoint import read_newest
from rlmin.checks import check_names
from rlmin.hub_snapshot import fetched, is_address
from rlmin.make import import_provider
from rlmin.policy_config import check_registered
from rlmin.trust import mark_header


@checked
def load(folder: str | Path, *, env: Any = None, device: torch.device | str = "cpu", trust: bool = False) -> Agent:
    """The agent saved in `folder`, ready to act or to go on learning; PPO or DecisionAgent, as the folder says.

    Args:
        folder: a run folder, where `agent.save` wrote, or "hf://user/name" or "hf://user/name@revision" on the
            Hugging Face hub.
        env: to go on learning in, with new episodes, or None: then the environment is made from its id once it is
            needed. `agent.resume(folder)` also restores the state of an environment that has one.
        device: where the weights go.
        trust: let the run import the module that its environment id names, if it names one: see `rlmin.trust`.

    Raises:
        ValueError: the folder is no run, is incomplete, of another version, damaged or edited, or the spaces of `env`
            are not those of the policy; see `rlmin.hub_snapshot.fetched` for what may be wrong on the hub.
    """
    folder = fetched(folder) if is_address(folder) else folder
    header, tensors = read_newest(Path(folder))
    mark_header(header, trust=trust, where=str(folder))
    check_names("agent", [header["agent"]], AGENTS)
    kind = AGENTS[header["agent"]]
    if trust and header["env"]["id"] is not None:
        import_provider(header["env"]["id"])  # the encoder may be registered there
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
    )
    agent.trust = trust
    agent.restore(header, tensors)
    if env is not None:
        agent.set_env(env)
    return agent
