"""minGRU and minLSTM inside sb3-contrib's RecurrentPPO: one pass over padded sequences says what single steps say."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

import rlmin
from rlmin.interop.sb3_recurrent import Memory, MinGruPolicy, MinLstmPolicy

T, B, D, H = 13, 3, 4, 6
POLICIES = [MinGruPolicy, MinLstmPolicy]
OBSERVATIONS = spaces.Box(-1, 1, (D,), np.float32)
SETTINGS = {
    "own": {},
    "shared": {"shared_lstm": True},
    "critic without": {"enable_critic_lstm": False},
    "blocks with everything": {"n_lstm_layers": 3, "lstm_kwargs": {"conv": 3, "mlp": 2}},
    "odd state": {"n_lstm_layers": 1, "lstm_hidden_size": 5, "lstm_kwargs": {"conv": 0}},
}


def make(policy: type[MinGruPolicy] = MinGruPolicy, space: Any = OBSERVATIONS, **settings: Any) -> MinGruPolicy:
    torch.manual_seed(0)
    made = policy(space, spaces.Discrete(2), lambda _: 1e-3, **{"lstm_hidden_size": H, "ortho_init": False, **settings})
    return made.eval()


def empty(policy: MinGruPolicy, rows: int) -> RNNStates:
    zeros = torch.zeros(1, rows, policy.lstm_actor.hidden_size)
    return RNNStates((zeros, zeros), (zeros, zeros))


def sequences() -> tuple[Tensor, Tensor, Tensor]:
    """Observations [B, T, D], actions [B, T], and starts [B, T]: at 0, in the middle, at the end, twice in a row."""
    torch.manual_seed(1)
    start = torch.zeros(B, T)
    start[0, 0] = start[1, 5] = start[1, 6] = start[2, T - 1] = 1
    return torch.rand(B, T, D) * 2 - 1, torch.randint(2, (B, T)), start


def one_by_one(policy: MinGruPolicy, states: Any) -> tuple[Tensor, Tensor, RNNStates]:
    """Values and log-probabilities [B, T] of single steps as in a rollout, and the states after them."""
    seen, action, start = sequences()
    values, log_probs = [], []
    with torch.no_grad():
        for t in range(T):
            value = policy.predict_values(seen[:, t], states.vf, start[:, t])
            distribution, _ = policy.get_distribution(seen[:, t], states.pi, start[:, t])
            _, same, _, states = policy(seen[:, t], states, start[:, t])
            torch.testing.assert_close(same, value)
            values.append(value[:, 0])
            log_probs.append(distribution.log_prob(action[:, t]))
    return torch.stack(values, 1), torch.stack(log_probs, 1), states


def all_at_once(policy: MinGruPolicy, states: RNNStates) -> tuple[Tensor, Tensor]:
    """The same of one call, as RecurrentPPO makes it: sequences flattened row after row."""
    seen, action, start = sequences()
    value, log_prob, _ = policy.evaluate_actions(seen.flatten(0, 1), action.flatten(), states, start.flatten())
    return value.view(B, T), log_prob.view(B, T)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("kind", POLICIES)
def test_a_pass_over_sequences_says_what_single_steps_say(kind: type[MinGruPolicy], settings: dict[str, Any]) -> None:
    policy = make(kind, **settings)
    values, log_probs, after = one_by_one(policy, empty(policy, B))
    torch.testing.assert_close(all_at_once(policy, empty(policy, B)), (values, log_probs), rtol=1e-4, atol=1e-5)
    values, log_probs, _ = one_by_one(policy, after)  # and from a memory that is not empty
    torch.testing.assert_close(all_at_once(policy, after), (values, log_probs), rtol=1e-4, atol=1e-5)
    assert (all_at_once(policy, empty(policy, B))[1] - log_probs).abs().max() > 1e-3, "the carried state matters"


def test_a_policy_that_forgets_to_reset_is_found() -> None:
    class Broken(MinGruPolicy):
        @staticmethod
        def _process_sequence(features: Tensor, lstm_states: Any, episode_starts: Tensor, lstm: Any) -> Any:
            starts = episode_starts if len(features) == B else torch.zeros_like(episode_starts)
            return MinGruPolicy._process_sequence(features, lstm_states, starts, lstm)

    policy = make(Broken)
    _, log_probs, _ = one_by_one(policy, empty(policy, B))
    difference = (all_at_once(policy, empty(policy, B))[1] - log_probs).abs()
    assert difference[:2].max() > 1e-3 and difference[0].max() < 1e-5, "row 0 starts where its memory is empty anyway"


@pytest.mark.parametrize("mixer", ["min_gru", "min_lstm"])
def test_the_packed_state_is_the_state(mixer: str) -> None:
    torch.manual_seed(0)
    memory = Memory(D, H, mixer=mixer, layers=2, conv=4, mlp=0).double()
    x, start = torch.randn(T, B, D, dtype=torch.float64), sequences()[2].t() > 0.5
    state = tuple(torch.zeros(1, B, memory.hidden_size, dtype=torch.float64) for _ in range(2))
    whole, last = memory(x, state, start)
    first, half = memory(x[:5], state, start[:5])
    second, after = memory(x[5:], half, start[5:])
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(after, last)
    torch.testing.assert_close(memory.pack(memory.unpack(last)), last)
    other, _ = memory(x[5:], half[::-1], start[5:])
    assert (other - second).abs().max() > 1e-3, "h and c are different halves"


def pole(num: int = 2) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.make("CartPole-v1")] * num)


def learner(policy: Any, env: Any = None, **settings: Any) -> Any:
    sizes = {"lstm_hidden_size": H, "net_arch": [5], **settings}
    return RecurrentPPO(policy, env or pole(), n_steps=32, batch_size=16, n_epochs=1, policy_kwargs=sizes, seed=0)


def test_the_first_ratio_of_an_update_is_one() -> None:
    """The buffer's sequences, cut and padded from a real rollout, are judged as they were acted."""
    model = learner("MinGruPolicy", pole(3))
    _, callback = model._setup_learn(96)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    opened = 0
    for part in model.rollout_buffer.get(40):
        actions = part.actions.long().flatten()
        values, log_prob, _ = model.policy.evaluate_actions(
            part.observations, actions, part.lstm_states, part.episode_starts
        )
        real = part.mask > 0.5
        torch.testing.assert_close(log_prob[real], part.old_log_prob[real], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values.flatten()[real], part.old_values[real], rtol=1e-4, atol=1e-5)
        opened += int(part.episode_starts.sum())
    assert opened > 3, "episodes began inside the rollout"


@pytest.mark.parametrize("name", ["MinGruPolicy", "MinLstmPolicy"])
def test_it_learns_acts_is_evaluated_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = learner(name)
    before = [x.clone() for x in model.policy.lstm_actor.parameters()]
    model.learn(64)
    assert any((x != y).any() for x, y in zip(before, model.policy.lstm_actor.parameters(), strict=True))
    assert model.policy_class is RecurrentPPO.policy_aliases[name]
    model.save(tmp_path / "model")
    again: Any = RecurrentPPO.load(tmp_path / "model", env=pole())
    seen, state, other = model.get_env().reset(), None, None
    for step in range(4):
        start = np.array([step == 0, step in (0, 2)])
        action, state = model.predict(seen, state, start, deterministic=True)
        same, other = again.predict(seen, other, start, deterministic=True)
        np.testing.assert_array_equal(action, same)
        np.testing.assert_allclose(state[0], other[0])
        seen = model.get_env().step(action)[0]
    again.learn(64)
    mean, _ = evaluate_policy(again, pole(), n_eval_episodes=2, warn=False)
    assert float(np.mean(mean)) >= 8


def test_the_policy_alone_is_saved_with_its_sizes(tmp_path: Path) -> None:
    policy = make(shared_lstm=True, n_lstm_layers=3, lstm_kwargs={"conv": 2})
    policy.save(str(tmp_path / "policy.pth"))
    again = MinGruPolicy.load(str(tmp_path / "policy.pth")).eval()
    torch.testing.assert_close(all_at_once(again, empty(again, B)), all_at_once(policy, empty(policy, B)))


def test_observations_choose_their_extractor() -> None:
    pictures = learner("MinGruPolicy", DummyVecEnv([lambda: FakeImageEnv(screen_height=40, screen_width=36)]))
    several = learner("MinGruPolicy", DummyVecEnv([lambda: SimpleMultiObsEnv(random_start=False)]))
    small = make(space=spaces.Box(0, 255, (3, 7, 7), np.uint8))
    names = [type(policy.features_extractor).__name__ for policy in (pictures.policy, several.policy, small)]
    assert names == ["NatureCNN", "CombinedExtractor", "FlattenExtractor"]
    pictures.learn(32)
    several.learn(32)


def test_continuous_actions_with_state_dependent_exploration() -> None:
    env = DummyVecEnv([lambda: gym.make("rlmin/PendulumNoVel-v1")])
    sizes = {"lstm_hidden_size": H, "ortho_init": False}
    RecurrentPPO("MinLstmPolicy", env, n_steps=16, batch_size=16, use_sde=True, policy_kwargs=sizes).learn(16)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="MinGruPolicy: shared_lstm=True and enable_critic_lstm=True: the critic has"):
        make(shared_lstm=True, enable_critic_lstm=True)
    with pytest.raises(ValueError, match="shared_lstm=True needs share_features_extractor=True"):
        make(shared_lstm=True, share_features_extractor=False)
    with pytest.raises(
        ValueError, match="no entry of lstm_kwargs of MinLstmPolicy 'candidat'; did you mean 'candidate'"
    ):
        make(MinLstmPolicy, lstm_kwargs={"candidat": "g"})


def test_another_environment_is_refused_when_loading(tmp_path: Path) -> None:
    learner("MinGruPolicy").save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        RecurrentPPO.load(tmp_path / "model", env=DummyVecEnv([lambda: gym.make("Acrobot-v1")]))


def test_without_sb3_contrib_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['sb3_contrib'] = None; import rlmin.interop.sb3_recurrent"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(rlmin.__file__).parents[1]
    )
    assert 'sb3_contrib is not installed; install it with `pip install "rlmin[sb3]"`' in done.stderr
