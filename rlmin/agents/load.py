"""Loading an agent from its folder."""

from pathlib import Path
from typing import Any

import torch

from rlmin.agents import AGENTS
from rlmin.agents.ppo import PPO, PPOConfig
from rlmin.checkpoint import POLICY, read, section
from rlmin.checks import check_names


def load(folder: str | Path, *, env: Any = None, device: torch.device | str = "cpu") -> PPO:
    """The agent saved in `folder`, ready to act.

    Args:
        folder: a run folder, or where `agent.save` wrote.
        env: to go on learning in, or None: then the environment is made from its id once it is needed.
        device: where the weights go.

    Raises:
        ValueError: the folder is no run, is incomplete, of another version, damaged or edited, or the spaces of `env`
            are not those of the policy.
    """
    header, tensors = read(Path(folder), POLICY)
    check_names("agent", [header["agent"]], AGENTS)
    agent = AGENTS[header["agent"]].without_env(
        header["observation_space"],
        header["action_space"],
        config=PPOConfig(**header["config"]),
        seed=header["seed"],
        device=device,
        env_spec=header["env"],
    )
    agent.policy.load_state_dict(section(tensors, "policy"))
    agent.num_timesteps, agent.num_updates = header["num_timesteps"], header["num_updates"]
    agent.total_timesteps, agent.run = header["total_timesteps"], header.get("run", {})
    if env is not None:
        agent.set_env(env)
    return agent
