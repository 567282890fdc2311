"""RecurrentPPO on CartPole without velocities: its LSTM beside minGRU and minLSTM in the same place, over seeds.

    python benchmarks/sb3_cartpole_novel.py --seeds 5

Every run is sb3-contrib's RecurrentPPO with rl_zoo3's tuned hyperparameters for the LSTM; for the other two only the
policy is exchanged. Writes a row a run to benchmarks/results/sb3-cartpole-novel.csv; runs that have a row are not made
again.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "sb3-cartpole-novel.csv"
POLICIES = {"LSTM": "MlpLstmPolicy", "minGRU": "MinGruPolicy", "minLSTM": "MinLstmPolicy"}
COLUMNS = ("policy", "seed", "steps", "steps to 400 (training, mean of 100)", "greedy return", "parameters", "seconds")
STEPS, ENOUGH = 100_000, 400.0


def train(policy: str, seed: int, steps: int) -> dict[str, Any]:
    """One run: train, then play 100 episodes greedily."""
    import numpy as np
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.utils import LinearSchedule
    from stable_baselines3.common.vec_env import VecNormalize

    import rlmin.interop.sb3_recurrent  # noqa: F401  (the names of the policies)

    torch.set_num_threads(1)
    env = VecNormalize(make_vec_env("rlmin/CartPoleNoVel-v1", 8, seed=seed), gamma=0.98)
    sizes = {"lstm_hidden_size": 64, "net_arch": {"pi": [64], "vf": [64]}}
    model = RecurrentPPO(
        POLICIES[policy],
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        clip_range=LinearSchedule(0.2, 0.0, 1.0),
        policy_kwargs={**sizes, "ortho_init": False, "activation_fn": torch.nn.ReLU},
        seed=seed,
        device="cpu",
    )
    reached: list[int] = []

    def watch(local: dict[str, Any], _: dict[str, Any]) -> bool:
        recent = model.ep_info_buffer or ()
        if not reached and len(recent) == 100 and np.mean([episode["r"] for episode in recent]) >= ENOUGH:
            reached.append(model.num_timesteps)
        return True

    began = time.perf_counter()
    model.learn(steps, callback=watch)
    seconds = time.perf_counter() - began
    test = VecNormalize(make_vec_env("rlmin/CartPoleNoVel-v1", 8, seed=1000 + seed), training=False, norm_reward=False)
    test.obs_rms = env.obs_rms
    greedy, _ = evaluate_policy(model, test, n_eval_episodes=100)
    size = sum(x.numel() for x in model.policy.parameters())
    found = (policy, seed, model.num_timesteps, reached[0] if reached else None, float(greedy), size, round(seconds))
    return dict(zip(COLUMNS, found, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = list(csv.DictReader(options.out.open())) if options.out.exists() else []
    for seed in range(options.seeds):
        for policy in options.policies:
            if any(row["policy"] == policy and int(row["seed"]) == seed for row in rows):
                continue
            rows.append(train(policy, seed, options.steps))
            print(rows[-1], flush=True)
            with options.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(sorted(rows, key=lambda row: (list(POLICIES).index(row["policy"]), int(row["seed"]))))


if __name__ == "__main__":
    main()
