"""sb3-contrib's RecurrentPPO with rlmin's minGRU in the place of its LSTM, on CartPole without velocities.

python examples/sb3_recurrent_ppo.py --steps 100000
"""

import argparse

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

import rlmin.interop.sb3_recurrent  # noqa: F401  (adds "MinGruPolicy" and "MinLstmPolicy" to RecurrentPPO)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--policy", default="MinGruPolicy", choices=["MinGruPolicy", "MinLstmPolicy", "MlpLstmPolicy"])
    options = parser.parse_args()

    env = VecNormalize(make_vec_env("rlmin/CartPoleNoVel-v1", 8, seed=0), gamma=0.98)
    model = RecurrentPPO(
        options.policy,
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        policy_kwargs={"lstm_hidden_size": 64, "ortho_init": False, "activation_fn": torch.nn.ReLU},
        seed=0,
    )
    model.learn(options.steps)

    env.training, env.norm_reward = False, False
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=20)
    print(f"{options.policy}: return {mean:.1f} +/- {deviation:.1f} in 20 episodes")


if __name__ == "__main__":
    main()
