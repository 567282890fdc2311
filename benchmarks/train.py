"""End-to-end training speed against sb3-contrib's RecurrentPPO: the same environments, rollouts, epochs and batches.

    python benchmarks/train.py [--rounds 3] [--threads 2] [--csv benchmarks/results/train.csv]

Each round trains every contender for a few rollouts, one after the other; the first rollout is not counted. Printed:
parameters, environment steps per second (median over rounds) and the ratio to RecurrentPPO, round by round, as its
median. RecurrentPPO has one LSTM of the stated width, shared by actor and critic, and one hidden layer of that width in
each head. rlmin has two residual blocks of that width (its default, about twice the network), one, or one with a
narrower MLP (the size nearest to RecurrentPPO's).
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rlmin import PPO, make_vec

Contender = Callable[[], tuple[int, float]]
"""Trains once: number of parameters, steps per second over ROLLOUTS rollouts."""

ROLLOUTS = 3  # counted in each round
EPOCHS = 4


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


def rlmin_contender(env: str, num_envs: int, batch: int, width: int, **settings: Any) -> Contender:
    """rlmin with these settings."""

    def run() -> tuple[int, float]:
        kwargs = {"length": 50} if "TMaze" in env else {}
        agent = PPO(
            env,
            env_kwargs=kwargs,
            num_envs=num_envs,
            horizon=128,
            minibatches=num_envs * 128 // batch,
            width=width,
            epochs=EPOCHS,
            **settings,
        )
        return _size(agent.policy), _speed(lambda steps: agent.learn(steps), num_envs * 128)

    return run


def sb3_contender(env: str, num_envs: int, batch: int, width: int) -> Contender:
    """RecurrentPPO with one shared LSTM."""

    def run() -> tuple[int, float]:
        from sb3_contrib import RecurrentPPO

        vec: VecEnv
        if "TMaze" in env:
            vec = TensorVecEnv(make_vec(env, num_envs, length=50))
        else:
            vec = DummyVecEnv([lambda: gym.make(env)] * num_envs)
        model = RecurrentPPO(
            "MlpLstmPolicy",
            vec,
            n_steps=128,
            batch_size=batch,
            n_epochs=EPOCHS,
            device="cpu",
            policy_kwargs={
                "lstm_hidden_size": width,
                "shared_lstm": True,
                "enable_critic_lstm": False,
                "net_arch": [width],
            },
        )
        return _size(model.policy), _speed(lambda steps: model.learn(steps), num_envs * 128)

    return run


def _size(policy: torch.nn.Module) -> int:
    return sum(x.numel() for x in policy.parameters())


def _speed(learn: Callable[[int], Any], rollout: int) -> float:
    learn(rollout)  # compiles, allocates
    began = time.perf_counter()
    learn(ROLLOUTS * rollout)
    return ROLLOUTS * rollout / (time.perf_counter() - began)


CASES: dict[str, tuple[str, int, int, int]] = {
    "tmaze, 64 envs, width 64": ("rlmin/TMaze-v0", 64, 2048, 64),
    "cartpole, 16 envs, width 256": ("CartPole-v1", 16, 512, 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for case, (env, num_envs, batch, width) in CASES.items():
        contenders = {
            "sb3-contrib RecurrentPPO": sb3_contender(env, num_envs, batch, width),
            "rlmin min_gru, 2 blocks": rlmin_contender(env, num_envs, batch, width),
            "rlmin min_gru, 1 block": rlmin_contender(env, num_envs, batch, width, layers=1),
            "rlmin min_gru, 1 block, mlp 1": rlmin_contender(env, num_envs, batch, width, layers=1, mlp=1),
            "rlmin lstm, 1 block": rlmin_contender(env, num_envs, batch, width, layers=1, encoder="lstm"),
        }
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        sizes: dict[str, int] = {}
        for _ in range(arguments.rounds):
            for name, run in contenders.items():
                sizes[name], speed = run()
                speeds[name].append(speed)
        base = speeds["sb3-contrib RecurrentPPO"]
        for name, found in speeds.items():
            ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
            speed = round(statistics.median(found))
            rows.append([case, name, sizes[name], speed, round(ratio, 2)])
            print(f"{case:30} {name:30} {sizes[name]:>9,}   {speed:>7,} steps/s   {ratio:5.2f} x", flush=True)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["case", "contender", "parameters", "steps per second", "ratio to RecurrentPPO"])
            writer.writerows(rows)
            writer.writerow(
                [f"# torch {torch.__version__}, {arguments.threads} threads, {sys.platform}", "", "", "", ""]
            )


if __name__ == "__main__":
    main()
