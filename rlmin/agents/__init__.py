"""Agents: one algorithm a file. `AGENTS` is the one place that turns a name into a class."""

from rlmin.agents.ppo import PPO as PPO
from rlmin.agents.ppo import PPOConfig as PPOConfig

AGENTS = {PPO.name: PPO}
