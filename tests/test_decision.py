"""The decision agent: what it learns from, that it does what it is asked for, and that a run goes on bit for bit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from torch import Tensor

from rlmin import PPO, DecisionAgent, DecisionConfig, load, verify_consistency
from rlmin.agents import decision_data
from rlmin.data import Dataset, Episode, load_dataset
from rlmin.runs.checkpoint import LEARNER, POLICY, read, write
from rlmin.wrappers.return_to_go import RETURN_TO_GO, ReturnToGo

SEEN, ACTION = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)
NEWER = {"tokens", "dropout", "heads", "context"}
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "rows": 3, "horizon": 16, "held_out": 0.2, "warmup_steps": 5}


def cue_episodes(number: int = 60, *, seed: int = 0) -> list[Episode]:
    """The first observation shows a cue; the last asks for it: to repeat it earns 2, not to earns 0."""
    random = np.random.default_rng(seed)
    episodes = []
    for _ in range(number):
        length, cue, last = int(random.integers(3, 7)), random.integers(2), random.integers(2)
        observation = np.zeros((length + 1, 2), np.float32)
        observation[0, 0], observation[length - 1, 1] = 2 * cue - 1, 1
        action, reward = np.zeros(length, np.int64), np.zeros(length, np.float32)
        action[-1], reward[-1] = last, 2 * (last == cue)
        episodes.append(Episode(observation, action, reward, True))
    return episodes


def cues(number: int = 60, *, seed: int = 0) -> Dataset:
    return load_dataset(cue_episodes(number, seed=seed), observation_space=SEEN, action_space=ACTION)


def points(lengths: tuple[int, ...] = (9, 4, 17, 30, 6), A: int = 3) -> Dataset:
    """Episodes of points in a box, with returns 1, 2, ..."""
    random = np.random.default_rng(1)
    episodes = [
        Episode(
            random.normal(3, 2, (length + 1, 4)).astype(np.float32),
            random.uniform(-1, 1, (length, A)).astype(np.float32),
            np.full(length, (i + 1) / length, np.float32),
            False,
        )
        for i, length in enumerate(lengths)
    ]
    return load_dataset(episodes, observation_space=spaces.Box(-9, 9, (4,)), action_space=spaces.Box(-1, 1, (A,)))


def make(data: Any = None, **settings: Any) -> DecisionAgent:
    return DecisionAgent(points() if data is None else data, **{**SMALL, **settings})


def state(agent: DecisionAgent) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in {**agent.policy.state_dict(), **agent.learner_state()}.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# what it learns


def answers(agent: DecisionAgent, target: float | None, length: int = 5) -> list[bool]:
    """For each cue, whether it is repeated at the end of an episode when `target` is asked for."""
    right = []
    for cue in (0, 1):
        memory: Any = None
        action: Any = 0
        for t in range(length):
            seen: Any = np.array([2 * cue - 1 if t == 0 else 0, t == length - 1], np.float32)
            if target is not None:
                scale = agent.config.return_scale or 1.0
                seen = {"observation": seen, RETURN_TO_GO: np.array([target / scale], np.float32)}
            action, memory = agent.predict(seen, memory, np.array([t == 0]), deterministic=True)
        right.append(int(action) == cue)
    return right


LEARNS = {**SMALL, "width": 16, "layers": 2, "rows": 8, "lr": 1e-2}


def test_asked_for_much_it_does_what_earned_much_and_asked_for_little_what_did_not() -> None:
    agent = DecisionAgent(cues(200), **LEARNS).learn(40_000)
    assert answers(agent, 2.0) == [True, True]
    assert answers(agent, 0.0) == [False, False], "the cue counts, and so does what is asked for"
    assert agent.held_out()["held_out_accuracy"] > 0.95 > 0.9 > make(cues(200)).held_out()["held_out_accuracy"]


def test_behaviour_cloning_copies_the_best_episodes_it_is_given() -> None:
    settings = LEARNS | {"condition": "none", "held_out": 0.0}
    assert answers(DecisionAgent(cues(200), top_fraction=0.3, **settings).learn(12_000), None) == [True, True]
    agent = DecisionAgent(cues(200), **settings).learn(4_000)
    with torch.no_grad():
        batch = agent.packing.draw()
        out = agent.policy.unroll(agent._select_inputs(batch), agent.policy.initial_state(8), batch["start"])
    last = torch.as_tensor(batch["observation", "observation"])[..., 1] == 1
    sure = out.distribution.log_prob(torch.as_tensor(batch["action"]))[last].exp()
    assert 0.3 < float(sure.mean()) < 0.7, "all episodes: half of them are wrong, and so is the clone"


def test_logged_action_masks_rule_actions_out_and_are_no_observation() -> None:
    random, flags = np.random.default_rng(3), 4
    episodes = []
    for length in (6, 9, 3, 11):
        mask = random.integers(0, 2, (length + 1, flags)).astype(np.int8)
        mask[:, 1] = 1
        seen = {"x": random.normal(size=(length + 1, 2)).astype(np.float32), "action_mask": mask}
        episodes.append(Episode(seen, np.ones(length, np.int64), np.ones(length, np.float32), True))
    masks = spaces.MultiBinary(flags)
    space = spaces.Dict({"x": spaces.Box(-9, 9, (2,)), "action_mask": masks})
    data = load_dataset(episodes, observation_space=space, action_space=spaces.Discrete(flags))
    agent = make(data, held_out=0.5)
    assert isinstance(agent.policy.observation_space, spaces.Dict)
    assert set(agent.policy.observation_space.spaces) == {"x", "return_to_go"}
    assert agent.learn(200).held_out().keys() == {"held_out_loss", "held_out_accuracy"}
    batch = agent.packing.draw()
    inputs = agent._select_inputs(batch), agent.policy.initial_state(3), batch["start"]
    free, ruled = (
        agent._measure_loss(agent.policy.unroll(*inputs, mask).distribution, batch)["loss"]
        for mask in (None, decision_data.legal_actions(batch, agent.policy))
    )
    assert ruled < free, "what was not legal has no probability"
    forbidden = [replace(one, actions=np.zeros_like(one.actions)) for one in episodes]
    with pytest.raises(ValueError, match=r"episode \d, step \d: its action_mask forbids the action"):
        make(load_dataset(forbidden, observation_space=space, action_space=spaces.Discrete(flags)))
    action, _ = agent.predict({"x": np.zeros(2), "action_mask": np.eye(flags)[2], "return_to_go": np.ones(1)})
    assert action == 2


def test_points_are_regressed_or_their_density_is_learnt() -> None:
    for loss in ("mse", "nll"):
        agent = make(lr=1e-2, loss=loss, held_out=0.0)
        spread = agent.policy.state_dict()["action_head.log_std"].clone()
        first = agent.update(agent.packing.draw())["loss"]
        agent.learn(8_000)
        assert agent.update(agent.packing.draw())["loss"] < 0.8 * first
        assert not torch.equal(spread, agent.policy.state_dict()["action_head.log_std"])


def test_regressed_points_are_sampled_with_the_spread_of_the_residuals() -> None:
    episodes, spread, drawn = [], np.array([0.1, 0.3]), np.random.default_rng(5)
    for _ in range(40):
        seen = drawn.normal(size=(33, 3)).astype(np.float32)
        action = 0.2 * seen[:-1, :2] + spread * drawn.normal(size=(32, 2))
        episodes.append(Episode(seen, action.astype(np.float32), np.ones(32, np.float32), True))
    data = load_dataset(episodes, action_space=spaces.Box(-2, 2, (2,), np.float32))
    agent = make(data, lr=1e-2, held_out=0.0, rows=4, horizon=32).learn(60_000)
    found = agent.policy.state_dict()["action_head.log_std"].exp().numpy()
    assert found == pytest.approx(spread / 2, rel=0.25), "in the unit where [-2, 2] is [-1, 1]"
    agent.config = replace(agent.config, loss="nll")
    assert agent._residuals(agent.policy.unroll(*_inputs(agent)).distribution, agent.packing.draw()) == {}
    agent.learn(256)
    assert np.array_equal(found, agent.policy.state_dict()["action_head.log_std"].exp().numpy())


def _inputs(agent: DecisionAgent) -> tuple[Any, ...]:
    batch = agent.packing.draw()
    return agent._select_inputs(batch), agent.policy.initial_state(agent.config.rows), batch["start"]


def paid(reward: float) -> list[Episode]:
    return [Episode(np.zeros((4, 2), np.float32), np.arange(3) % 2, np.full(3, reward, np.float32), True)] * 2


@pytest.mark.parametrize("settings", [{}, {"normalize_observation": False}, {"tokens": "triple"}])
def test_a_return_is_seen_however_large_it_is_but_never_beyond_what_was_trained_on(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    agent, more = (make(paid(reward), held_out=0.0, return_scale=1.0, **settings) for reward in (20, 40))
    batch = agent.packing.draw()

    def logits(asked: float, of: DecisionAgent = agent) -> torch.Tensor:
        seen = of._select_inputs(batch) | {"return_to_go": torch.full_like(batch["return_to_go"], asked)}
        found: Any = of.policy.unroll(seen, of.policy.initial_state(of.config.rows), batch["start"]).distribution
        logits: torch.Tensor = found.logits.detach()
        return logits

    for within, other in ((60.0, 40.0), (40.0, 20.0), (20.0, 20.1)):
        assert not torch.equal(logits(within), logits(other)), "neither is cut off"
    assert torch.equal(logits(60.0), logits(6000.0)) and torch.equal(logits(20.0), logits(-3.0))
    agent.save(tmp_path)
    known = logits(60.0)
    more.resume(tmp_path)
    agent.set_dataset(paid(40))
    for wider in (agent, more):
        assert torch.equal(logits(120.0, wider), logits(6000.0, wider))
        assert not torch.equal(logits(60.0, wider), logits(120.0, wider))
        assert torch.equal(logits(60.0, wider), known), "the weights are the same"


# what it learns from


def test_the_unit_of_returns_is_a_round_number_near_the_largest() -> None:
    for largest, scale in ((1.0, 1), (3600.0, 5000), (2.9, 2), (0.07, 0.05), (-140.0, 100), (9.0, 10), (0.0, 1)):
        reward = np.array([largest], np.float32)
        episode = Episode(np.zeros((2, 2), np.float32), np.zeros(1, np.int64), reward, True)
        data = load_dataset([episode], observation_space=SEEN, action_space=ACTION)
        assert decision_data.round_scale(data) == pytest.approx(scale)
    assert make().config.return_scale == 5.0 and make(return_scale=3.0).config.return_scale == 3.0


def test_rewards_that_cancel_out_have_a_unit_too() -> None:
    reward = np.array([-100.0] * 10 + [100.0] * 10 + [1.0], np.float32)
    episode = Episode(np.zeros((22, 2), np.float32), np.zeros(21, np.int64), reward, True)
    data = load_dataset([episode], observation_space=SEEN, action_space=ACTION)
    assert float(data.returns[0]) == 1 and decision_data.round_scale(data) == 1000


def test_the_best_of_what_is_not_kept_out_is_trained_on() -> None:
    data = cues(100)
    train, held_out = decision_data.split(data, DecisionConfig(held_out=0.25, top_fraction=0.1), seed=0)
    assert len(train) == 8 and len(held_out) == 25 and not set(train) & set(held_out)
    returns = data.returns.numpy()
    assert (returns[train] == 2).all() and 0 < returns[held_out].mean() < 2, "those kept out are a sample of all"
    everything, none = decision_data.split(data, DecisionConfig(held_out=0.0), seed=0)
    assert everything.tolist() == list(range(100)) and len(none) == 0
    assert held_out.tolist() != decision_data.split(data, DecisionConfig(held_out=0.25), seed=1)[1].tolist()


def test_without_episodes_kept_out_there_is_no_open_loop_loss() -> None:
    assert make(held_out=0.1).held_out() == {}, "a tenth of five episodes, rounded down"
    assert set(make().held_out()) == {"held_out_loss"}
    assert set(make(cues()).held_out()) == {"held_out_loss", "held_out_accuracy"}
    agent = make()
    before = state(agent)
    assert agent.held_out() == agent.held_out() and same(before, state(agent)), "measuring changes nothing"


def test_the_open_loop_loss_is_the_mean_over_the_steps_kept_out() -> None:
    data = points()
    for settings in ({}, {"windows": 4}):
        agent = make(data, held_out=0.6, **settings)
        _, kept = decision_data.split(data, agent.config, agent.seed)
        alone = [make(data, seed=agent.seed, **settings) for _ in kept]
        total = 0.0
        for one, episode in zip(alone, kept, strict=True):
            one.policy.load_state_dict(agent.policy.state_dict())
            one._held_out = decision_data.make_packing(data, agent.config, np.array([episode]), seed=0, stagger=False)
            total += one.held_out()["held_out_loss"] * int(data.lengths[episode])
        assert agent.held_out()["held_out_loss"] == pytest.approx(total / int(data.lengths[kept].sum()), rel=1e-5)
        assert agent.held_out(batches=1) != agent.held_out(), "the arm that fails: a part of the steps"


def test_the_mask_of_several_choices_may_have_axes_of_its_own() -> None:
    mask = np.ones((8, 2, 3), np.int8)
    mask[:, 0, 2] = 0
    seen = {"x": np.zeros((8, 1), np.float32), "action_mask": mask}
    episodes = [Episode(seen, np.tile([1, 2], (7, 1)), np.ones(7, np.float32), True) for _ in range(3)]
    space = spaces.Dict({"x": spaces.Box(-9, 9, (1,)), "action_mask": spaces.MultiBinary((2, 3))})
    data = load_dataset(episodes, observation_space=space, action_space=spaces.MultiDiscrete([3, 3]))
    assert math.isfinite(make(data, held_out=0.0).update(make(data).packing.draw())["loss"])
    mask[3, 1, 2] = 0
    with pytest.raises(ValueError, match=r"episode 0, step 3: its action_mask forbids"):
        make(load_dataset(episodes, observation_space=space, action_space=spaces.MultiDiscrete([3, 3])))


def test_a_run_of_attention_beyond_its_windows_from_before_can_still_be_loaded(tmp_path: Path) -> None:
    agent = make(windows=6, encoder="attention", heads=2, context=6)
    agent.config = replace(agent.config, context=64)
    agent.save(tmp_path / "run")
    assert load(tmp_path / "run").config.context == 64


def test_a_warm_up_takes_a_tenth_of_a_short_training() -> None:
    agent = make(warmup_steps=1000, lr=1e-3, lr_final=1e-3)
    rates = [agent.update(agent.packing.draw(), done=done)["learning_rate"] for done in (0.0, 0.05, 0.1, 0.5)]
    assert rates == pytest.approx([1e-6, 5e-4, 1e-3, 1e-3])


def test_training_that_begins_anew_warms_up_anew() -> None:
    agent = make(warmup_steps=10, lr=1e-3, rows=2, horizon=8)
    agent.learn(16 * 200)
    steps, rates = agent.num_timesteps, []
    for agent.num_timesteps in (steps, 0, 16, 32):
        rates.append(agent.update(agent.packing.draw())["learning_rate"])
    assert rates == pytest.approx([1e-3, 1e-4, 2e-4, 3e-4])


def test_observations_are_normalised_by_the_data_once_and_returns_are_not() -> None:
    data = points()
    agent = make(data, held_out=0.0)
    seen = torch.as_tensor(data.step["observation", "observation"]).double()
    found = agent.policy.state_dict()
    means = [x for name, x in found.items() if name.endswith("norm.mean") and len(x) == 4]
    torch.testing.assert_close(means[0], seen.mean(0))
    told = data.return_to_go().double() / (agent.config.return_scale or 0)
    low, high = ([x for name, x in found.items() if name.endswith(f"norm.{end}")] for end in ("low", "high"))
    assert len(low) == len(high) == 1 and float(low[0]) < float(high[0])
    torch.testing.assert_close(torch.stack([low[0], high[0]]).flatten(), torch.stack([told.min(), told.max()]))
    agent.learn(300)
    assert torch.equal(means[0], torch.as_tensor(seen.mean(0))), "and stays so"


def test_what_is_asked_for_is_an_entry_of_the_observation_as_the_wrapper_makes_it() -> None:
    agent = make(cues())
    env = gym.make("CartPole-v1")
    wrapped = ReturnToGo(env, 5.0).observation_space
    assert isinstance(agent.policy.observation_space, spaces.Dict) and isinstance(wrapped, spaces.Dict)
    assert agent.policy.observation_space[RETURN_TO_GO] == wrapped[RETURN_TO_GO]
    assert make(cues(), condition="none").policy.observation_space == SEEN


# what is repeatable


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dropout": 0.2, "lr_final": 0.0},
        {"windows": 7, "encoder": "attention", "heads": 2, "tokens": "triple", "context": 21},
        {"encoder": "lstm", "previous_reward": True, "tokens": "triple", "top_fraction": 0.7},
        {"condition": "none", "encoder": "aaren", "heads": 2, "loss": "nll"},
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(settings: dict[str, Any], tmp_path: Path) -> None:
    data, total = points(), 700
    whole = make(data, **settings).learn(total)
    half = make(data, **settings)
    half.learn(total, lambda now, later: half.num_updates < 6)
    assert half.num_timesteps < total
    half.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, DecisionAgent)
    again.set_dataset(data)
    again.resume(tmp_path)
    assert same(state(half), state(again))
    again.learn(total - again.num_timesteps, reset_num_timesteps=False)
    assert same(state(whole), state(again)) and again.num_updates == whole.num_updates
    forgot = DecisionAgent.load(tmp_path)  # without the order of the data: the arm that must fail
    forgot.set_dataset(data)
    forgot.learn(total - forgot.num_timesteps, reset_num_timesteps=False)
    assert not same(state(whole), state(forgot))


def test_a_seed_decides_everything_and_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = make(seed=1, dropout=0.1).learn(500)
    assert torch.equal(torch.rand(3), wanted)
    assert same(state(first), state(make(seed=1, dropout=0.1).learn(500)))
    assert not same(state(first), state(make(seed=2, dropout=0.1).learn(500)))


def test_steps_are_those_of_the_data_and_learn_counts_as_in_stable_baselines3() -> None:
    agent = make(rows=3, horizon=16).learn(100)
    assert agent.num_timesteps == 144 and agent.num_updates == 3
    assert agent.learn(48, reset_num_timesteps=False).num_timesteps == 192
    assert agent.learn(48).num_timesteps == 48
    windows = make(windows=20, rows=4).learn(1)
    assert 4 <= windows.num_timesteps < 80, "padding does not count"


def test_the_learning_rate_rises_and_then_falls() -> None:
    agent = make(lr=0.1, lr_final=0.0, warmup_steps=4)
    rates = [agent.update(agent.packing.draw(), done=done)["learning_rate"] for done in (0, 0, 0, 0, 0.5, 0.9)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.05, 0.01])
    agent = make(lr=0.1, warmup_steps=0)
    rates = [agent.update(agent.packing.draw(), done=done)["learning_rate"] for done in (0, 0.5, 1)]
    assert rates == pytest.approx([0.1, 0.055, 0.01]), "of its own accord to a tenth"


# saving, loading


def test_a_loaded_agent_acts_as_the_saved_one_and_says_what_it_lacks(tmp_path: Path) -> None:
    agent = make(cues()).learn(200)
    agent.save(tmp_path)
    again, fresh = load(tmp_path), make(cues(), seed=1)
    random = np.random.default_rng(0)
    memory: dict[Any, Any] = dict.fromkeys((agent, again, fresh))
    for t in range(6):
        seen = {"observation": random.normal(size=(3, 2)).astype(np.float32)}
        seen[RETURN_TO_GO] = random.normal(size=(3, 1)).astype(np.float32)
        for other in memory:
            _, memory[other] = other.predict(seen, memory[other], np.full(3, t == 0), deterministic=True)
    left, right, other = (memory[key][0][0][0][1] for key in memory)
    assert torch.equal(left, right) and not torch.equal(left, other)
    with pytest.raises(ValueError, match=r"data were given in memory; give them again with set_dataset\(dataset\)"):
        again.learn(10)
    with pytest.raises(ValueError, match="expected an agent of kind 'ppo', found 'decision'"):
        PPO.load(tmp_path)
    assert again.get_env() is None and again.run["data"]["reference"] is None
    assert max(again.run["data"]["returns"]) == 2


def test_training_goes_on_in_the_order_of_the_data_after_loading(tmp_path: Path) -> None:
    path, steps = tmp_path / "some.hdf5", 400
    with h5py.File(path, "w") as file:
        for key, shape in (("observations", (4,)), ("actions", (2,)), ("rewards", ())):
            file[key] = np.random.default_rng(1).uniform(-1, 1, (steps, *shape)).astype(np.float32)
        file["terminals"], file["timeouts"] = np.arange(steps) % 8 == 7, np.zeros(steps, bool)
    whole = DecisionAgent(path, **SMALL)
    whole.learn(600)
    whole.save(tmp_path / "half")
    again = load(tmp_path / "half")
    again.save(tmp_path / "copy")  # before its data were opened
    copy = load(tmp_path / "copy")
    for agent in (whole, again, copy):
        agent.learn(600, reset_num_timesteps=False)
        assert isinstance(agent, DecisionAgent) and same(state(agent), state(whole))
    other = load(tmp_path / "half")
    assert isinstance(other, DecisionAgent)
    other.set_dataset(path)
    assert int(other.packing.state_dict()["dealt"]) == 0, "data given anew begin anew"


def test_tuple_observations_are_seen_beside_a_return() -> None:
    class Pair(gym.Env[Any, Any]):
        observation_space = spaces.Tuple((spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(3)))
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return (np.zeros(2, np.float32), np.int64(1)), {}

        def step(self, action: int) -> Any:
            return (np.ones(2, np.float32), np.int64(2)), 1.0, False, False, {}

    seen = (np.zeros((9, 2), np.float32), np.zeros(9, np.int64))
    episodes = [Episode(seen, np.ones(8, np.int64), np.ones(8, np.float32), True) for _ in range(6)]
    data = load_dataset(episodes, observation_space=Pair.observation_space, action_space=Pair.action_space)
    for condition in ("return", "none"):
        agent = make(data, condition=condition).learn(200)
        env: Any = ReturnToGo(Pair(), 3.0, scale=agent.return_scale) if condition == "return" else Pair()
        observation, _ = env.reset(seed=0)
        action, _ = agent.predict(observation, deterministic=True)
        assert agent.held_out() is not None and action in (0, 1)


def test_the_environment_that_is_named_has_to_be_that_of_the_data() -> None:
    data = cues()
    with pytest.raises(ValueError, match=r"observation space: the policy expects .*, environment Pendulum-v1 has"):
        make(data, env="Pendulum-v1")
    with pytest.raises(ValueError, match="differs from its id; give an id"):
        make(data, env=ReturnToGo(gym.make("CartPole-v1"), 1.0))
    episodes = [Episode(np.zeros((4, 4)), np.ones(3, np.int64), np.ones(3), True) for _ in range(3)]
    agent = make(episodes, env=gym.make("CartPole-v1", max_episode_steps=7))
    assert agent.env_spec["id"] == "CartPole-v1" and agent.env_spec["kwargs"] == {"max_episode_steps": 7}


def test_what_lacks_a_return_or_an_environment_says_so() -> None:
    agent = make(cues())
    with pytest.raises(ValueError, match="has no return to aim for, 'return_to_go'; wrap the env"):
        agent.predict(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="this agent has no environment of its own; give one, env="):
        verify_consistency(agent)
    episodes = [Episode(np.zeros((4, 2)), np.ones(3, np.int64), np.full(3, 3e38), True)]
    with pytest.raises(ValueError, match="a return is too large for float32"):
        make(load_dataset(episodes, observation_space=SEEN, action_space=ACTION))


def test_a_short_training_has_a_curve_too() -> None:
    agent, rows = make(cues(), rows=2, horizon=8), list[int]()
    agent.logger.dump = lambda step=0: rows.append(step)  # type: ignore[method-assign]
    agent.learn(16 * 100)
    assert len(rows) == 20 and rows[-1] == 1600
    agent.learn(16 * 7)
    assert len(rows) == 27


def test_data_are_found_again_by_their_path_and_known_by_their_content(tmp_path: Path) -> None:
    def log(steps: int) -> Path:
        random, path = np.random.default_rng(steps), tmp_path / "some.hdf5"
        with h5py.File(path, "w") as file:
            file["observations"] = random.normal(size=(steps, 4)).astype(np.float32)
            file["actions"] = random.uniform(-1, 1, (steps, 2)).astype(np.float32)
            file["rewards"] = random.normal(size=steps).astype(np.float32)
            file["terminals"] = np.arange(steps) % 8 == 7
            file["timeouts"] = np.zeros(steps, bool)
        return path

    path = log(80)
    agent = DecisionAgent(path, env=None, **SMALL).learn(100)
    agent.save(tmp_path / "run")
    again = load(tmp_path / "run")
    again.resume(tmp_path / "run")
    assert isinstance(again, DecisionAgent) and again.dataset.num_steps == 80
    assert same(state(agent), state(again))
    log(96)
    with pytest.raises(ValueError, match=r"this run's had 10 episodes of 80 steps in all, found 12 of 96"):
        load(tmp_path / "run").resume(tmp_path / "run")
    other = load(tmp_path / "run")
    assert isinstance(other, DecisionAgent)
    other.set_dataset(path)
    other.resume(tmp_path / "run")  # other data, asked for: their order begins anew
    assert other.num_updates == agent.num_updates and int(other.packing.state_dict()["dealt"]) == 0


def test_a_run_saved_before_a_setting_existed_still_loads(tmp_path: Path) -> None:
    agent = PPO("rlmin/TMaze-v0", env_kwargs={"length": 4}, width=8, num_envs=2, horizon=4).learn(16)
    agent.save(tmp_path)
    header, tensors = read(tmp_path, LEARNER)
    header["config"] = {key: value for key, value in header["config"].items() if key not in NEWER}
    weights = {name[7:]: x for name, x in tensors.items() if name.startswith("policy.")}
    rest = {name: x for name, x in tensors.items() if not name.startswith("policy.")}
    described = {key: header.pop(key) for key in ("observation_space", "action_space")}
    write(tmp_path / "old", header, (described["observation_space"], described["action_space"]), weights, rest)
    old = load(tmp_path / "old")
    assert old.config.tokens == "fused" and old.name == "ppo"
    assert set(read(tmp_path / "old", POLICY)[1]) == set(read(tmp_path, POLICY)[1])


# callbacks


class Record(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def _on_rollout_start(self) -> None:
        self.calls.append("start")

    def _on_step(self) -> bool:
        self.calls.append("step")
        assert self.num_timesteps == self.model.num_timesteps == 48 * self.n_calls
        return self.n_calls < 5

    def _on_rollout_end(self) -> None:
        self.calls.append("end")


def test_callbacks_are_called_after_gradient_steps_and_can_end_training(tmp_path: Path) -> None:
    callback = Record()
    agent = make().learn(1000, [callback, CheckpointCallback(2, str(tmp_path))], log_interval=3)
    assert callback.calls == ["start", "step", "step", "step", "end", "start", "step", "step", "end"]
    assert agent.num_updates == 5
    assert load(tmp_path / "rl_model_96_steps.zip").num_updates == 2


# what goes wrong


def test_a_loss_that_is_not_finite_leaves_the_weights_as_they_were() -> None:
    agent = make().learn(100)
    batch, before = agent.packing.draw(), {name: x.clone() for name, x in agent.policy.state_dict().items()}
    batch["action"][3, 1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 144 \(update 3\); the weights are those before"):
        agent.update(batch)
    assert same(before, dict(agent.policy.state_dict())) and agent.num_updates == 3
    agent.update(agent.packing.draw())
    assert not same(before, dict(agent.policy.state_dict())), "and training can go on"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"windows": 6, "encoder": "attention"},
            "context=64: windows=6 train on 6 inputs of the memory; set context=6",
        ),
        ({"rows": 0}, "rows: expected a whole number from 1 to .*, got 0"),
        ({"windows": 0}, "windows: expected a whole number from 1 to .* or None, got 0"),
        ({"top_fraction": 0.0}, "top_fraction: expected a number above 0 and at most 1, got 0"),
        ({"held_out": 1.0}, "held_out: expected a number from 0 to below 1, got 1"),
        ({"return_scale": 0.0}, "return_scale: expected a number above 0 or None, got 0.0"),
        ({"lr": -1.0}, "lr: expected a number above 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0, got -1"),
        ({"condition": "returns"}, "no condition 'returns'; did you mean 'return'"),
        ({"loss": "msee"}, "no loss 'msee'; did you mean 'mse'"),
        ({"share_memory": False}, "share_memory=False: a decision agent has no critic"),
        ({"hidden": 3}, "no setting 'hidden'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_data_with_other_spaces_are_refused_and_nothing_changes() -> None:
    agent = make()
    before = agent.dataset
    with pytest.raises(ValueError, match=r"observation space: the policy expects .*, dataset .* has "):
        agent.set_dataset(cues())
    with pytest.raises(ValueError, match=r"action space: the policy expects .*, dataset .* has "):
        agent.set_dataset(points(A=2))
    assert agent.dataset is before
