import os

import gymnasium as gym
import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class MaskVelocity(gym.ObservationWrapper):
    def observation(self, obs):
        return (obs * np.array([1.0, 0.0, 1.0, 0.0])).astype(np.float32)


def linear_schedule(initial_value):
    def func(progress_remaining):
        return progress_remaining * initial_value

    return func


set_random_seed(7)
log_dir = "logs/"
os.makedirs(log_dir, exist_ok=True)
env = make_vec_env("CartPole-v1", n_envs=4, seed=7, wrapper_class=MaskVelocity, vec_env_cls=DummyVecEnv)
env = VecNormalize(env, norm_obs=True, norm_reward=True, gamma=0.98)
eval_env = make_vec_env("CartPole-v1", n_envs=1, wrapper_class=MaskVelocity)
eval_env = VecNormalize(eval_env, training=False, norm_reward=False)

model = RecurrentPPO(
    policy="MlpLstmPolicy",
    env=env,
    learning_rate=linear_schedule(3e-4),
    n_steps=32,
    batch_size=64,
    n_epochs=2,
    gamma=0.98,
    gae_lambda=0.9,
    clip_range=linear_schedule(0.2),
    clip_range_vf=None,
    normalize_advantage=True,
    ent_coef=0.01,
    vf_coef=0.5,
    max_grad_norm=0.5,
    target_kl=0.05,
    policy_kwargs={"lstm_hidden_size": 16, "n_lstm_layers": 1, "enable_critic_lstm": True, "ortho_init": True},
    tensorboard_log="tb",
    seed=7,
    device="auto",
    verbose=0,
)
callback = CallbackList(
    [
        EvalCallback(
            eval_env, best_model_save_path="best", log_path=log_dir, eval_freq=32, n_eval_episodes=2, verbose=0
        ),
        CheckpointCallback(save_freq=64, save_path="checkpoints", name_prefix="rppo", save_vecnormalize=True),
    ]
)
model.learn(total_timesteps=512, callback=callback, log_interval=1, tb_log_name="masked", progress_bar=False)
assert model.get_vec_normalize_env() is env
env.save("vec_normalize.pkl")
model.save("best/final_model.zip")

env = VecNormalize.load("vec_normalize.pkl", make_vec_env("CartPole-v1", wrapper_class=MaskVelocity))
env.training, env.norm_reward = False, False
model = RecurrentPPO.load("best/final_model", env=env)
obs, state, starts, total = env.reset(), None, np.ones((1,), dtype=bool), 0.0
while True:
    action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
    obs, reward, starts, info = env.step(action)
    total += reward[0]
    if starts[0]:
        print("episode", info[0]["episode"]["r"], total)
        break
assert os.listdir("tb") == ["masked_1"]
print(RecurrentPPO.load("best/best_model").num_timesteps)
