"""The features extractors: a stateless memory of a window of frames, for stable-baselines3's own algorithms."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage

from rlmin.interop.sb3_extractor import MinGruExtractor, MinLstmExtractor

K, B, D, H = 5, 3, 4, 6


def make(kind: type[MinGruExtractor] = MinGruExtractor, **settings: Any) -> MinGruExtractor:
    torch.manual_seed(0)
    return kind(spaces.Box(-1, 1, (K * D,), np.float32), H, frames=K, **settings).double()


@pytest.mark.parametrize("kind", [MinGruExtractor, MinLstmExtractor])
def test_features_are_the_memory_after_stepping_through_the_window(kind: type[MinGruExtractor]) -> None:
    extractor = make(kind)
    x = torch.randn(B, K, D, dtype=torch.float64)
    state = extractor.memory.initial_state(B)
    for t in range(K):
        y, state = extractor.memory.step(x[:, t], state, torch.zeros(B, dtype=torch.bool))
    torch.testing.assert_close(extractor(x.flatten(1)), y)
    assert (extractor(x.flip(1).flatten(1)) - y).abs().max() > 1e-3, "order matters"
    assert torch.autograd.grad(extractor(x.flatten(1)).sum(), next(extractor.parameters()))[0].abs().sum() > 0


def test_zeros_before_an_episode_are_as_if_they_were_not_there() -> None:
    extractor, shorter = make(), make()
    x = torch.randn(B, K, D, dtype=torch.float64)
    x[:, :2] = 0
    torch.testing.assert_close(extractor(x.flatten(1)), shorter(x[:, 2:].flatten(1)))
    inside = x.clone()
    inside[:, 3] = 0  # a frame of zeros in the middle is a frame
    assert (extractor(inside.flatten(1)) - shorter(x[:, [2, 4]].flatten(1))).abs().max() > 1e-3


def stacked(env: Any) -> dict[str, Any]:
    return {"features_extractor_class": MinGruExtractor, "features_extractor_kwargs": {"features_dim": H, **env}}


def test_ppo_and_dqn_learn_with_it_from_either_kind_of_window() -> None:
    frames = VecFrameStack(DummyVecEnv([lambda: gym.make("rlmin/CartPoleNoVel-v1")] * 2), K)
    model = PPO("MlpPolicy", frames, n_steps=16, batch_size=16, n_epochs=1, policy_kwargs=stacked({"frames": K}))
    model.learn(32)
    mean, _ = evaluate_policy(model, frames, n_eval_episodes=2, warn=False)
    assert float(np.mean(mean)) >= 8
    env = FrameStackObservation(gym.make("rlmin/CartPoleNoVel-v1"), K)
    DQN("MlpPolicy", env, learning_starts=8, buffer_size=100, policy_kwargs=stacked({})).learn(16)


def test_pictures_are_read_frame_by_frame() -> None:
    env = VecTransposeImage(
        VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(screen_height=40, screen_width=36, n_channels=3)]), 2)
    )
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, policy_kwargs=stacked({"frames": 2}))
    model.learn(8)
    extractor = model.policy.features_extractor
    assert isinstance(extractor, MinGruExtractor) and extractor.frame_shape == (3, 40, 36)
    grey = MinGruExtractor(spaces.Box(0, 255, (K, 36, 37), np.uint8), H)
    assert grey(torch.rand(B, K, 36, 37)).shape == (B, H) and grey.picture is not None


def test_what_is_no_window_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"MinGruExtractor: expected frames \[K, ...\], got observations of shape \[4\]"
    ):
        MinGruExtractor(spaces.Box(-1, 1, (D,), np.float32))
    with pytest.raises(ValueError, match=r"frames=3 must divide the first axis .* got \[4\]"):
        MinGruExtractor(spaces.Box(-1, 1, (D,), np.float32), frames=3)
    with pytest.raises(ValueError, match="MinGruExtractor: frames=0: expected at least 1"):
        MinGruExtractor(spaces.Box(-1, 1, (D,), np.float32), frames=0)
    with pytest.raises(ValueError, match="MinLstmExtractor: expected a Box, got Dict"):
        MinLstmExtractor(spaces.Dict(a=spaces.Box(-1, 1, (D,), np.float32)))
