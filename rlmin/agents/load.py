"""Loading an agent from its folder."""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents import AGENTS
from rlmin.agents.agent import Agent
from rlmin.checkpoint import LEARNER, POLICY, read
from rlmin.checks import check_names


def load(folder: str | Path, *, env: Any = None, device: torch.device | str = "cpu") -> Agent:
    """The agent saved in `folder`, ready to act or to go on learning; PPO or DecisionAgent, as the folder says.

    Args:
        folder: a run folder, or where `agent.save` wrote.
        env: to go on learning in, with new episodes, or None: then the environment is made from its id once it is
            needed. `agent.resume(folder)` also restores the state of an environment that has one.
        device: where the weights go.

    Raises:
        ValueError: the folder is no run, is incomplete, of another version, damaged or edited, or the spaces of `env`
            are not those of the policy.
    """
    header, tensors = read(Path(folder), POLICY)
    if (Path(folder) / LEARNER).exists():
        header, tensors = read(Path(folder), LEARNER)
    check_names("agent", [header["agent"]], AGENTS)
    kind = AGENTS[header["agent"]]
    agent = kind.from_spaces(
        header["observation_space"],
        header["action_space"],
        config=kind.settings(**header["config"]),
        seed=header["seed"],
        device=device,
        env_spec=header["env"],
    )
    agent.restore(header, tensors)
    if env is not None:
        agent.set_env(env)
    return agent
