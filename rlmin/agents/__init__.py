"""Agents: one algorithm a file. `AGENTS` is the one place that turns a name into a class."""

from rlmin.agents.agent import Agent as Agent
from rlmin.agents.decision import DecisionAgent as DecisionAgent
from rlmin.agents.decision import DecisionConfig as DecisionConfig
from rlmin.agents.ppo import PPO as PPO
from rlmin.agents.ppo import PPOConfig as PPOConfig

AGENTS: dict[str, type[Agent]] = {PPO.name: PPO, DecisionAgent.name: DecisionAgent}
