"""Agents: one algorithm a file. The line here that imports it registers its class in `AGENTS`."""

from rlmin.agents.agent import AGENTS as AGENTS
from rlmin.agents.agent import Agent as Agent
from rlmin.agents.decision import DecisionAgent as DecisionAgent
from rlmin.agents.decision import DecisionConfig as DecisionConfig
from rlmin.agents.ppo import PPO as PPO
from rlmin.agents.ppo import PPOConfig as PPOConfig
