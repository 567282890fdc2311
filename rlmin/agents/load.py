"""Loading an agent from its folder."""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents.agent import AGENTS, Agent
from rlmin.agents.restore import restore
from rlmin.settings.boundary import checked


@checked
def load(folder: str | Path, *, env: Any = None, device: torch.device | str = "cpu", trust: bool = False) -> Agent:
    """The agent saved in `folder`, ready to act or to go on learning; PPO or DecisionAgent, as the folder says.

    Args:
        folder: a run folder, where `agent.save` wrote, or "hf://user/name" or "hf://user/name@revision" on the
            Hugging Face hub.
        env: to go on learning in, with new episodes, or None: then the environment is made from its id once it is
            needed. `agent.resume(folder)` also restores the state of an environment that has one.
        device: where the weights go.
        trust: let the run import the module that its environment id names, if it names one: see `rlmin.files.trust`.

    Raises:
        ValueError: the folder is no run, is incomplete, of another version, damaged or edited, or the spaces of `env`
            are not those of the policy; see `rlmin.runs.hub_snapshot.fetch` for what may be wrong on the hub.
    """
    return restore(AGENTS, folder, env=env, device=device, trust=trust)
