import gymnasium as gym
import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor

train_env = Monitor(gym.make("Pendulum-v1"))
model = RecurrentPPO("MlpLstmPolicy", train_env, n_steps=50, batch_size=25, n_epochs=1, use_sde=False)
model.set_logger(configure("log", ["csv", "tensorboard"]))
model.learn(100)
model.save("pendulum")

params = model.get_parameters()
print(sorted(params), len(params["policy"]))
other = RecurrentPPO("MlpLstmPolicy", gym.make("Pendulum-v1"), n_steps=50, seed=1)
other.set_parameters(params)
obs = np.zeros((1, 3), dtype=np.float32)
same = [m.policy.predict(obs, deterministic=True)[0] for m in (model, other)]
assert np.allclose(same[0], same[1])

model = RecurrentPPO.load(
    "pendulum.zip", env=train_env, custom_objects={"learning_rate": 1e-5}, print_system_info=False
)
assert model.num_timesteps == 100 and model.learning_rate == 1e-5
model.learn(100, reset_num_timesteps=False)
assert model.num_timesteps == 200
model.set_env(gym.make("Pendulum-v1"))
model.ent_coef = 0.001
model.learn(50, reset_num_timesteps=False)
print(model.n_steps, model.batch_size, model.n_epochs, model.gamma, model.gae_lambda, model.clip_range(1.0))
print(model.observation_space, model.action_space, model.n_envs, model.device, model.ep_info_buffer)
