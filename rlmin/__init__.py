"""rlmin: policies that remember, trained in parallel over whole rollouts, acting one step at a time.

`import rlmin` loads no torch. A name of this page is imported when it is first asked for, and the environments are
registered as soon as gymnasium is there.
"""

__version__ = "0.1.0"  # first: files below put it into what they write

# isort: off
from rlmin.waiting import CHOSEN as _CHOSEN  # first, as it has no effect once torch is imported  # noqa: F401

# isort: on
import importlib as _importlib
from typing import TYPE_CHECKING

from rlmin._import_hooks import keep_old_names as _keep_old_names
from rlmin._import_hooks import register_with_gymnasium as _register_with_gymnasium

if TYPE_CHECKING:
    from rlmin.agents.decision import DecisionAgent as DecisionAgent
    from rlmin.agents.decision import DecisionConfig as DecisionConfig
    from rlmin.agents.load import load as load
    from rlmin.agents.ppo import PPO as PPO
    from rlmin.agents.ppo import PPOConfig as PPOConfig
    from rlmin.evaluation.verify import verify_consistency as verify_consistency
    from rlmin.policy import Policy as Policy
    from rlmin.policy import PolicyConfig as PolicyConfig
    from rlmin.vector import make_vec as make_vec
else:
    _HOME = {
        "DecisionAgent": "rlmin.agents.decision",
        "DecisionConfig": "rlmin.agents.decision",
        "load": "rlmin.agents.load",
        "PPO": "rlmin.agents.ppo",
        "PPOConfig": "rlmin.agents.ppo",
        "verify_consistency": "rlmin.evaluation.verify",
        "Policy": "rlmin.policy",
        "PolicyConfig": "rlmin.policy",
        "make_vec": "rlmin.vector",
    }
    _ELSEWHERE = {
        "RecurrentPPO": "write rlmin.PPO, which has a memory",
        "MaskablePPO": "write rlmin.PPO, which reads the entry action_mask of an observation",
        **dict.fromkeys(("DecisionTransformer", "BC"), "write rlmin.DecisionAgent, which learns from logged data"),
        **dict.fromkeys(
            ("A2C", "DQN", "SAC", "TD3", "DDPG", "CQL", "IQL", "TD3PlusBC"),
            "its algorithms are PPO and, on logged data, DecisionAgent",
        ),
        "make_vec_env": "write rlmin.make_vec, or import it from stable_baselines3.common.env_util",
        "evaluate_policy": "import it from stable_baselines3.common.evaluation; it takes rlmin's agents",
    }
    _FACES = ("agents", "data", "encoders", "envs", "policy", "scan", "vector", "wrappers")

    def __getattr__(name):
        """A public name from its module, or a package that users import from."""
        if name in _FACES:
            return _importlib.import_module(f"rlmin.{name}")
        if name in _ELSEWHERE:  # an AttributeError would reach nobody who writes `from rlmin import RecurrentPPO`
            raise ImportError(f"rlmin has no {name!r}; {_ELSEWHERE[name]}")
        if name not in _HOME:
            raise AttributeError(f"module 'rlmin' has no attribute {name!r}")
        found = globals()[name] = getattr(_importlib.import_module(_HOME[name]), name)
        return found

    def __dir__():
        return sorted({*globals(), *_HOME, *_FACES})


_register_with_gymnasium()
_keep_old_names()
