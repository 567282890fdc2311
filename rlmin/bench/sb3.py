"""sb3-contrib's RecurrentPPO on the environments that rlmin trains on."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rlmin.bench.peers import need
from rlmin.vector.make import make_vec


class TensorVecEnv(VecEnv):
    """A native tensor environment as a stable-baselines3 VecEnv, so that both libraries step the same code."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.env = env

    def reset(self) -> np.ndarray:
        observation, _ = self.env.reset(seed=0)
        return np.asarray(observation.numpy())

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = torch.from_numpy(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, terminated, truncated, infos = self.env.step(self.actions)
        done = (terminated | truncated).numpy()
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in done.nonzero()[0]:
            rows[row]["terminal_observation"] = infos["final_obs"][row].numpy()
        return observation.numpy(), reward.numpy(), done, rows

    def close(self) -> None: ...
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...
    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return []

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def make_recurrent_ppo(
    env: str,
    env_kwargs: dict[str, Any],
    *,
    num_envs: int,
    horizon: int,
    batch: int,
    epochs: int,
    width: int,
    device: str,
    policy: str = "MlpLstmPolicy",
    **memory: Any,
) -> Any:
    """A RecurrentPPO with one hidden layer as wide as its memory in each head.

    Args:
        env, env_kwargs, num_envs: the environments; native ones are stepped on the CPU, as it computes in numpy.
        horizon: steps of each environment between updates.
        batch: steps in a minibatch.
        epochs: passes over a rollout.
        width: units of the memory.
        device: of the policy.
        policy: its name.
        memory: further entries of `policy_kwargs`; by default actor and critic share one memory.

    Raises:
        Missing: sb3-contrib is not installed.
    """
    module = need("sb3_contrib")
    vec: VecEnv
    if env.startswith("rlmin/") and gym.spec(env).vector_entry_point is not None:
        vec = TensorVecEnv(make_vec(env, num_envs, **env_kwargs))
    else:
        vec = DummyVecEnv([lambda: gym.make(env, **env_kwargs)] * num_envs)
    sizes = {"lstm_hidden_size": width, "net_arch": [width], "shared_lstm": True, "enable_critic_lstm": False, **memory}
    settings = {"n_steps": horizon, "batch_size": batch, "n_epochs": epochs, "policy_kwargs": sizes}
    return module.RecurrentPPO(policy, vec, device=device, **settings)
