"""stable-baselines3's PPO and sb3-contrib's RecurrentPPO as columns of the defaults suite, at their own defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from rlmin.checks import require
from rlmin.suite.cells import Row
from rlmin.suite.default_cell import EPISODES, EVALUATIONS, FINAL_EPISODES, SEED, DefaultCell
from rlmin.vector.make import make_one
from rlmin.wrappers import PreviousAction, PreviousReward

PEERS = {"PPO": ("stable_baselines3", "Mlp"), "RecurrentPPO": ("sb3_contrib", "MlpLstm")}
"""Class -> its package, and the first policy in its documentation."""


@dataclass(frozen=True)
class SB3Cell(DefaultCell):
    """One training run of a peer; only the row is kept."""

    def run(self, folder: Path) -> Row:
        """Train and score.

        Raises:
            ImportError: the package is not installed.
        """
        from stable_baselines3.common.evaluation import evaluate_policy

        torch.set_num_threads(1)
        name = self.settings["column"]["peer"]
        package, policy = PEERS[name]
        train, test = self._env(), self._env()
        kind = f"{policy}Policy" if not isinstance(train.observation_space, gym.spaces.Dict) else _multi(policy)
        agent = getattr(require(package, extra="sb3"), name)(kind, train, seed=self.seed, device="cpu")
        points, curve = list[float](), list[float]()

        def play(episodes: int, seed: int) -> float:
            test.reset(seed=seed)
            returns: Any = evaluate_policy(agent, test, n_eval_episodes=episodes, warn=False)[0]
            return float(returns)

        def watch_progress(local: dict[str, Any], everything: dict[str, Any]) -> bool:
            due = (len(curve) + 1) * self.settings["steps"] / EVALUATIONS
            if len(curve) < EVALUATIONS and agent.num_timesteps >= due:
                points.append(agent.num_timesteps)
                curve.append(play(EPISODES, SEED))
            return True

        agent.learn(self.settings["steps"], callback=watch_progress)
        if len(curve) < EVALUATIONS:
            points.append(agent.num_timesteps)
            curve.append(play(EPISODES, SEED))
        return self.row(points, curve, play(FINAL_EPISODES, SEED + 1))

    def _env(self) -> gym.Env[Any, Any]:
        """The task in a form that these libraries support."""
        env = make_one(self.settings["env"], **self.settings["env_kwargs"])
        if self.settings["env"].startswith("MiniGrid-"):  # they support neither texts nor pictures of 7x7
            from minigrid import wrappers

            seen: Any = wrappers.ImgObsWrapper
            env = seen(env)
        for setting, wrapper in (("previous_action", PreviousAction), ("previous_reward", PreviousReward)):
            env = wrapper(env) if self.settings["settings"].get(setting) else env
        if isinstance(env.observation_space, gym.spaces.Box | gym.spaces.MultiDiscrete):
            env = gym.wrappers.FlattenObservation(env)
        return env


def _multi(policy: str) -> str:
    """The policy for Dict observations."""
    return f"MultiInput{policy.removeprefix('Mlp')}Policy"
