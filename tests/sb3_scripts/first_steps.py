import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy

model = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", verbose=1, n_steps=64, n_epochs=2)
model.learn(200)

vec_env = model.get_env()
mean_reward, std_reward = evaluate_policy(model, vec_env, n_eval_episodes=3, warn=False)
print(f"mean_reward={mean_reward:.2f} +/- {std_reward:.2f}")

model.save("ppo_recurrent")
del model

model = RecurrentPPO.load("ppo_recurrent")

obs = vec_env.reset()
lstm_states = None
num_envs = 1
episode_starts = np.ones((num_envs,), dtype=bool)
for _ in range(100):
    action, lstm_states = model.predict(obs, state=lstm_states, episode_start=episode_starts, deterministic=True)
    obs, rewards, dones, info = vec_env.step(action)
    episode_starts = dones
    vec_env.render("rgb_array")
vec_env.close()
