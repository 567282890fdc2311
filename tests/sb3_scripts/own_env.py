import os

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.results_plotter import load_results, ts2xy


class Recall(gym.Env):
    """The cue of the first step is the answer to the last one."""

    def __init__(self, length=5):
        self.length = length
        self.observation_space = spaces.Dict(cue=spaces.Box(-1.0, 1.0, (2,), np.float32), clock=spaces.Discrete(length))
        self.action_space = spaces.MultiDiscrete([2, 3])

    def _obs(self):
        return {"cue": self.cue if self.t == 0 else np.zeros(2, np.float32), "clock": self.t}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.answer = 0, self.np_random.integers(2)
        self.cue = np.eye(2, dtype=np.float32)[self.answer]
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        done = self.t == self.length - 1
        right = bool(action[0] == self.answer)
        return self._obs(), float(done and right), done, False, {"is_success": right} if done else {}


class SaveOnBestTrainingReward(BaseCallback):
    def __init__(self, check_freq, log_dir, verbose=1):
        super().__init__(verbose)
        self.check_freq, self.log_dir = check_freq, log_dir
        self.save_path = os.path.join(log_dir, "best_model")
        self.best_mean_reward = -np.inf

    def _init_callback(self):
        os.makedirs(self.save_path, exist_ok=True)

    def _on_step(self):
        if self.n_calls % self.check_freq == 0:
            x, y = ts2xy(load_results(self.log_dir), "timesteps")
            if len(x) > 0 and np.mean(y[-100:]) > self.best_mean_reward:
                self.best_mean_reward = np.mean(y[-100:])
                self.model.save(self.save_path)
        return True


log_dir = "tmp/"
os.makedirs(log_dir, exist_ok=True)
check_env(Recall())
env = Monitor(Recall(), log_dir)
model = RecurrentPPO("MultiInputLstmPolicy", env, n_steps=40, batch_size=40, n_epochs=1, ent_coef=0.0, verbose=0)
callback = SaveOnBestTrainingReward(check_freq=20, log_dir=log_dir)
model.learn(total_timesteps=160, callback=callback)
assert callback.best_mean_reward > -np.inf and os.path.exists(callback.save_path)
obs, _ = env.reset()
states, start, done = None, np.array([True]), False
while not done:
    action, states = model.predict(obs, states, start, deterministic=False)
    obs, reward, terminated, truncated, info = env.step(action)
    done, start = terminated or truncated, np.array([False])
print(info["is_success"], model.ep_success_buffer)
