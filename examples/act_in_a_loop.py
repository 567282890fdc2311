"""A policy with memory in a gymnasium loop of one's own: one environment, then many, memory kept by the actor.

python examples/act_in_a_loop.py --steps 100000
"""

import argparse

import gymnasium as gym
import numpy as np

import rlmin

LENGTH = 6


def one_episode(agent: rlmin.PPO) -> float:
    env = gym.make("rlmin/TMaze-v0", length=LENGTH)
    act = agent.actor()
    observation, _ = env.reset(seed=1)
    total, over = 0.0, False
    while not over:
        action = act(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


def many_episodes(agent: rlmin.PPO, rows: int = 8, steps: int = 100) -> float:
    envs = rlmin.make_vec("rlmin/TMaze-v0", rows, length=LENGTH)
    act = agent.actor(envs)  # knows when each row starts anew
    act.reset(seed=2)
    total, ended = 0.0, 0
    for _ in range(steps):
        _, reward, terminated, truncated, _ = act.step()
        total, ended = total + float(np.sum(np.asarray(reward))), ended + int((terminated | truncated).sum())
    return total / ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    steps = parser.parse_args().steps

    agent = rlmin.PPO("rlmin/TMaze-v0", env_kwargs={"length": LENGTH}, num_envs=32, horizon=16, width=32, seed=0)
    agent.learn(steps)
    print(f"one episode: return {one_episode(agent):.2f}")
    print(f"many: return {many_episodes(agent):.2f} an episode")


if __name__ == "__main__":
    main()
