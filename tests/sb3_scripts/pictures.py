import gymnasium as gym
import numpy as np
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.logger import HParam
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor


class Dot(gym.Env):
    def __init__(self):
        self.observation_space = gym.spaces.Box(0, 255, (40, 40, 1), np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self.render_mode = "rgb_array"

    def _see(self):
        picture = np.zeros((40, 40, 1), np.uint8)
        picture[20, self.x] = 255
        return picture

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 20, 0
        return self._see(), {}

    def step(self, action):
        self.t += 1
        self.x = int(np.clip(self.x + action - 1, 0, 39))
        return self._see(), self.x / 39, False, self.t >= 10, {}


class HParamCallback(BaseCallback):
    def _on_training_start(self):
        hparams = {
            "algorithm": self.model.__class__.__name__,
            "learning rate": self.model.learning_rate,
            "gamma": self.model.gamma,
        }
        metrics = {"rollout/ep_len_mean": 0, "train/value_loss": 0.0}
        self.logger.record("hparams", HParam(hparams, metrics), exclude=("stdout", "log", "json", "csv"))

    def _on_step(self):
        return True


env = VecMonitor(VecFrameStack(DummyVecEnv([Dot for _ in range(2)]), n_stack=2))
model = RecurrentPPO(
    "CnnLstmPolicy",
    env,
    n_steps=16,
    batch_size=32,
    n_epochs=1,
    clip_range=lambda p: 0.1 * p,
    tensorboard_log="./board/",
    policy_kwargs={"lstm_hidden_size": 16, "n_lstm_layers": 1, "shared_lstm": True, "enable_critic_lstm": False},
)
model.learn(1000, callback=[HParamCallback(), StopTrainingOnMaxEpisodes(max_episodes=4, verbose=0)])
assert 40 <= model.num_timesteps <= 96, model.num_timesteps
print(env.get_attr("x"), model.ep_info_buffer)
