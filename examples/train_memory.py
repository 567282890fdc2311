"""Train on a task that needs memory, beside the control that has none, and draw both.

python examples/train_memory.py --steps 300000
"""

import argparse
from pathlib import Path

from rlmin.commands.train import TrainConfig, evaluate_run, train
from rlmin.runs.plots import plot_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300_000, help="environment steps of each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/train-memory"))
    arguments = parser.parse_args()

    folders = []
    for encoder in ("min_gru", "mlp"):
        config = TrainConfig(
            env="rlmin/RepeatFirstEasy-v0",  # the first of 51 cards is asked for at every step
            encoder=encoder,
            total_timesteps=arguments.steps,
            num_envs=64,
            horizon=51,  # a whole episode
            lr=5e-4,
            lr_final=0.0,
            entropy=0.01,
            eval_episodes=0,
            folder=arguments.folder / encoder,
        )
        folders.append(train(config))
        print(f"{encoder}: {evaluate_run(folders[-1], episodes=64)}")
    plot_runs(folders, [arguments.folder / "curves.png"])
    print(f"-0.5 is guessing, 1 is perfect; see {arguments.folder / 'curves.png'}")


if __name__ == "__main__":
    main()
