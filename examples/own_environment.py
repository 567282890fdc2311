"""An environment of one's own, checked, learnt, saved and played.

python examples/own_environment.py --steps 60000
"""

import argparse

import gymnasium as gym
import numpy as np

import rlmin
from rlmin.evaluation.evaluate import evaluate
from rlmin.vector import adapt


class Lamp(gym.Env):
    """A lamp shines in one of three colours; nine steps later the colour is asked for."""

    observation_space = gym.spaces.Dict(lamp=gym.spaces.Discrete(4), question=gym.spaces.MultiBinary(1))  # 0: dark
    action_space = gym.spaces.Discrete(3)

    def __init__(self, delay: int = 9) -> None:
        self.delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.colour, self.time = int(self.np_random.integers(3)), 0
        return self._seen(self.colour + 1), {}

    def step(self, action):
        self.time += 1
        over = self.time > self.delay
        right = over and action == self.colour
        return self._seen(0), float(right), over, False, {"success": bool(right)} if over else {}

    def _seen(self, lamp):
        return {"lamp": lamp, "question": np.array([self.time == self.delay], dtype=np.int8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60_000)
    steps = parser.parse_args().steps

    gym.register("Lamp-v0", entry_point=Lamp)
    agent = rlmin.PPO("Lamp-v0", num_envs=16, horizon=40, width=64, entropy=0.01, seed=0)
    print(f"acting and training differ by {rlmin.verify_consistency(agent):.1e} nats")
    agent.learn(steps, progress_bar=True)
    agent.save("runs/lamp")
    again = rlmin.load("runs/lamp")
    print(evaluate(again.policy, adapt("Lamp-v0", num_envs=16, seed=1), episodes=96))


if __name__ == "__main__":
    main()
