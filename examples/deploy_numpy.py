"""Train, export for numpy alone, and play with what was exported, as a program without torch would.

python examples/deploy_numpy.py --steps 40000
"""

import argparse
import sys
from pathlib import Path

from rlmin.commands.export import Export, run_export
from rlmin.commands.train import TrainConfig, train

PLAY = """
import gymnasium as gym
from numpy_policy import NumpyPolicy        # the file beside policy.npz; it imports numpy and nothing of rlmin

policy = NumpyPolicy("policy.npz")
env = gym.make("CartPole-v1")
for episode in range(3):
    (observation, _), state, start, length = env.reset(seed=episode), None, True, 0
    while True:
        action, state = policy.predict(observation, state, start, deterministic=True)
        observation, _, terminated, truncated, _ = env.step(action)
        start, length = False, length + 1
        if terminated or truncated:
            break
    print(f"episode {episode}: {length} steps")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/deploy-numpy"))
    arguments = parser.parse_args()
    run, out = arguments.folder / "run", arguments.folder / "deployed"

    train(TrainConfig(env="CartPole-v1", width=64, total_timesteps=arguments.steps, eval_episodes=0, folder=run))
    print(run_export(Export(run=run, numpy=out / "policy.npz")))
    (out / "play.py").write_text(PLAY)
    print(f"now: cd {out} && {Path(sys.executable).name} play.py")


if __name__ == "__main__":
    main()
