"""PPO plays, a decision agent learns from what it did, and is asked for returns.

python examples/offline.py --steps 40000
"""

import argparse

from rlmin import load, make_vec
from rlmin.commands.evaluate import Evaluate, run_evaluate
from rlmin.commands.train import DecisionTrainConfig, TrainConfig, train
from rlmin.evaluation.collect import PlayedBy, collect
from rlmin.runs.plots import plot_runs

ENV, DATASET = "rlmin/PositionOnlyCartPoleEasy-v0", "pole/example-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40_000, help="of the teacher; the student reads 50 times as many")
    steps = parser.parse_args().steps

    teacher = train(TrainConfig(env=ENV, total_timesteps=steps, eval_episodes=0), name="teacher")
    player = PlayedBy(name="teacher", policy=load(teacher).policy, episodes=max(steps // 100, 20), deterministic=False)
    dataset = collect([player], lambda rows: make_vec(ENV, rows), DATASET, overwrite=True)
    print(f"{dataset.id}: {dataset.total_episodes:,} episodes, {dataset.total_steps:,} steps")

    config = DecisionTrainConfig(dataset=DATASET, env=ENV, total_timesteps=50 * steps, eval_episodes=0)
    student = train(config, name="student")
    print(run_evaluate(Evaluate(run=student, target_return=(0.3, 0.6, 1.0), episodes=32)))
    plot_runs([student], [student / "curve.svg"])


if __name__ == "__main__":
    main()
