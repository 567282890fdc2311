"""rlmin: policies that remember, trained in parallel over whole rollouts, acting one step at a time."""

__version__ = "0.1.0"  # first: files below put it into what they write

# isort: off
from rlmin.waiting import CHOSEN as _CHOSEN  # first, as it has no effect once torch is imported  # noqa: F401

# isort: on
from rlmin._moved import keep_old_names as _keep_old_names
from rlmin.agents.decision import DecisionAgent as DecisionAgent
from rlmin.agents.decision import DecisionConfig as DecisionConfig
from rlmin.agents.load import load as load
from rlmin.agents.ppo import PPO as PPO
from rlmin.agents.ppo import PPOConfig as PPOConfig
from rlmin.envs import register as _register
from rlmin.evaluation.verify import verify_consistency as verify_consistency
from rlmin.policy import Policy as Policy
from rlmin.policy import PolicyConfig as PolicyConfig
from rlmin.vector import make_vec as make_vec

_register()
_keep_old_names()
