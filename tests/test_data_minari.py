"""Minari datasets: written by Minari's own DataCollector, read so that action[t] belongs to observation[t]."""

import gc
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari import DataCollector
from minari.data_collector import EpisodeBuffer

import rlmin  # noqa: F401 - registers its environments
from rlmin.data import Dataset, Reference, load_dataset
from rlmin.data.minari import _reference
from rlmin.data.reference import reference_of
from rlmin.policy.heads import action_head

pytestmark = pytest.mark.needs("jax")  # as Minari does where it writes datasets

TOLD = {
    "algorithm_name": "a rule",
    "author": "nobody",
    "author_email": "nobody@example.org",
    "code_permalink": "https://example.org",
    "description": "what the tests read",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("RLMIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_REMOTE", "none://nowhere")  # no test asks the network
    return tmp_path / "minari"


def rule(observation: np.ndarray) -> int:
    """An action that tells which observation it was taken in."""
    return int(abs(observation.astype(np.float64)).sum() * 1e5) % 2


def record(
    env: gym.Env[Any, Any], act: Callable[[Any], Any], id: str, *, episodes: int = 9, **told: Any
) -> "minari.MinariDataset":
    collector = DataCollector(env)
    for seed in range(episodes):
        observation, _ = collector.reset(seed=seed)
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = collector.step(act(observation))
            ended = terminated or truncated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari misses metadata of a published dataset, and forgets temporary folders
        dataset = collector.create_dataset(dataset_id=id, **TOLD, **told)
        collector.close()
        del collector
        gc.collect()
    return dataset


def cart_pole(id: str = "cart/rule-v0", **told: Any) -> "minari.MinariDataset":
    env = gym.make("CartPole-v1", max_episode_steps=30)
    return record(env, rule, id, **told)


def misaligned(dataset: Dataset) -> int:
    """How many actions are not those of their observation."""
    seen = dataset.step["observation", "observation"].numpy()
    wanted = torch.tensor([[rule(row)] for row in seen])
    return int((wanted != dataset.step["action"]).sum())


def test_each_action_stands_beside_the_observation_it_was_taken_in() -> None:
    cart_pole()
    dataset = load_dataset("cart/rule-v0")
    assert dataset.num_episodes == 9 and len(set(dataset.lengths.tolist())) > 3
    assert misaligned(dataset) == 0


def test_a_loader_that_drifts_by_one_observation_an_episode_is_caught() -> None:
    """Laying L + 1 observations beside L actions end to end, as if they were as many."""
    raw = cart_pole()
    seen = np.concatenate([episode.observations for episode in raw])[: raw.total_steps]
    drifted = load_dataset(raw)
    step = drifted.step.clone()
    step["observation", "observation"] = torch.from_numpy(seen)
    assert misaligned(replace(drifted, step=step)) > raw.total_steps / 4


def test_every_number_is_the_one_that_minari_holds() -> None:
    raw = cart_pole()
    dataset = load_dataset(raw)
    for e, episode in enumerate(raw):
        rows = slice(int(dataset.first[e]), int(dataset.first[e + 1]))
        seen = torch.from_numpy(episode.observations)
        assert torch.equal(dataset.step["observation", "observation"][rows], seen[:-1])
        assert torch.equal(dataset.final["observation", "observation"][e], seen[-1])
        assert torch.equal(dataset.step["action"][rows, 0], torch.from_numpy(episode.actions))
        assert np.array_equal(dataset.step["reward"][rows], episode.rewards.astype(np.float32))
        assert bool(dataset.terminated[e]) == bool(episode.terminations[-1])


def test_columns_that_nobody_wrote_do_not_fill_the_memory(folder: Path) -> None:
    cart_pole()
    with h5py.File(folder / "cart" / "rule-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_3"]["rewards"]
        file["episode_3"].create_dataset("rewards", (10**10,), "f4", chunks=True)
    with pytest.raises(ValueError, match="episode_3/rewards: expected 40,000,000,000 bytes, of which 0 are in"):
        load_dataset("cart/rule-v0")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"total_steps": 10**18}, "GiB of memory, this machine has"),
        ({"total_steps": 10**30}, "GiB of memory, this machine has"),
        ({"total_steps": -3}, "expected counts of steps"),
        ({"total_steps": [3]}, "cannot be read by Minari"),
    ],
)
def test_counts_that_lie_are_one_error(told: dict[str, Any], message: str, folder: Path) -> None:
    cart_pole()
    path = folder / "cart" / "rule-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    with pytest.raises(ValueError, match=message):
        load_dataset("cart/rule-v0", cache=False)


def test_environment_recipe_and_spaces_come_along() -> None:
    dataset = load_dataset(cart_pole(ref_min_score=9.0, ref_max_score=500.0))
    assert dataset.env == {"id": "CartPole-v1", "kwargs": {"max_episode_steps": 30}, "workers": 0}
    assert dataset.recipe["algorithm_name"] == "a rule" and dataset.recipe["recorded in"] == "CartPole-v1"
    assert isinstance(dataset.action_space, spaces.Discrete)
    assert dataset.reference is not None and (dataset.reference.random, dataset.reference.expert) == (9.0, 500.0)
    assert "metadata of cart/rule-v0" in dataset.reference.source


def test_the_table_of_d4rl_comes_before_the_datasets_own_scores() -> None:
    buffer = EpisodeBuffer(
        id=0,
        observations=np.zeros((3, 11)),
        actions=np.zeros((2, 3), np.float32),
        rewards=[1.0, 2.0],
        terminations=[False, False],
        truncations=[False, True],
    )
    box = spaces.Box(-np.inf, np.inf, (11,))
    space = spaces.Box(-1, 1, (3,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = minari.create_dataset_from_buffers(
            "mujoco/hopper/medium-v0",
            [buffer],
            observation_space=box,
            action_space=space,
            ref_min_score=1.0,
            ref_max_score=2.0,
            **TOLD,
        )
    dataset = load_dataset(raw)
    assert dataset.reference is not None and dataset.reference.expert == 3234.3
    assert dataset.reference.source == "D4RL, hopper" and dataset.env is None


def test_scores_that_rlmin_wrote_come_before_the_table_of_d4rl() -> None:
    spec = gym.spec("Hopper-v5")
    measured = {"ref_min_score": 18.0, "ref_max_score": 1000.0}
    assert _reference(measured, "my/hop-v0", spec) == reference_of("hopper")
    assert _reference(measured | {"reference_source": "measured"}, "my/hop-v0", spec) == Reference(
        random=18.0, expert=1000.0, source="metadata of my/hop-v0, measured"
    )
    spec.kwargs = {"forward_reward_weight": 2.0}
    found = _reference(measured, "my/hop-v0", spec)
    assert found is not None and found.source == "metadata of my/hop-v0", "another task than D4RL's"
    assert _reference({}, "pen/expert-v0", gym.spec("CartPole-v1")) is None, "a name says nothing then"
    assert _reference({}, "pen/expert-v0", None) == reference_of("pen")


def test_an_environment_that_its_id_does_not_make_again_is_unknown() -> None:
    env = gym.wrappers.TransformReward(gym.make("CartPole-v1", max_episode_steps=5), lambda reward: -float(reward))
    assert env.spec is not None
    from rlmin.data.minari import env_of

    assert env_of(env.spec) is None
    plain = gym.make("CartPole-v1").spec
    assert plain is not None and env_of(plain) == {"id": "CartPole-v1", "kwargs": {}, "workers": 0}
    assert env_of(gym.envs.registration.EnvSpec("Elsewhere-v3", entry_point="nowhere:Env")) is None


def test_box_actions_are_in_the_unit_of_the_action_head() -> None:
    env = gym.make("Pendulum-v1", max_episode_steps=6)
    raw = record(env, lambda seen: np.array([2 * seen[1]], np.float32), "pendulum/rule-v1", episodes=4)
    dataset = load_dataset("pendulum/rule-v1")
    sine = dataset.step["observation", "observation"][:, 1:2]
    assert torch.allclose(dataset.step["action"], sine, atol=1e-6)  # the bounds are -2 and 2
    head = action_head(dataset.action_space, 5)
    raw_actions = torch.from_numpy(np.concatenate([episode.actions for episode in raw]))
    assert torch.allclose(head.to_env(dataset.step["action"]), raw_actions, atol=1e-6)
    assert not dataset.terminated.any()


def nested_buffer(space: spaces.Space[Any], actions: spaces.Space[Any], L: int, id: int) -> EpisodeBuffer:
    space.seed(id)
    actions.seed(id)
    observations: Any = None
    for _ in range(L + 1):
        observations = _appended(observations, space.sample())
    return EpisodeBuffer(
        id=id,
        observations=observations,
        actions=[actions.sample() for _ in range(L)],
        rewards=[0.5] * L,
        terminations=[False] * (L - 1) + [True],
        truncations=[False] * L,
    )


def _appended(held: Any, x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _appended(None if held is None else held[key], part) for key, part in x.items()}
    if isinstance(x, tuple):
        return tuple(_appended(None if held is None else held[i], part) for i, part in enumerate(x))
    return [*(held or []), x]


def test_nested_spaces_goals_images_and_text() -> None:
    space = spaces.Dict(
        {
            "achieved_goal": spaces.Box(-1, 1, (3,), np.float64),
            "desired_goal": spaces.Box(-1, 1, (3,), np.float64),
            "image": spaces.Box(0, 255, (8, 9, 3), np.uint8),
            "mission": spaces.Text(5),
            "parts": spaces.Tuple((spaces.Discrete(4, start=2), spaces.MultiBinary(5))),
        }
    )
    actions = spaces.MultiDiscrete([3, 4])
    buffers = [nested_buffer(space, actions, L, e) for e, L in enumerate((6, 1, 7))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = minari.create_dataset_from_buffers(
            "nested/all-v0", buffers, observation_space=space, action_space=actions, jpeg_encoding=False, **TOLD
        )
    dataset = load_dataset(raw)
    step = dataset.step["observation"]
    assert set(step.keys()) == {"achieved_goal", "desired_goal", "image", "parts.0", "parts.1"}
    assert dataset.lengths.tolist() == [6, 1, 7] and dataset.terminated.all()
    assert step["image"].dtype == torch.uint8 and step["image"].shape == (14, 8, 9, 3)
    assert step["parts.0"].dtype == torch.int64 and step["parts.1"].shape == (14, 5)
    last: Any = buffers[2].observations
    assert torch.equal(step["image"][7:], torch.from_numpy(np.array(last["image"][:-1])))
    assert torch.equal(step["parts.0"][7:], torch.tensor([int(x) - 2 for x in last["parts"][0][:-1]]))
    assert torch.equal(dataset.step["action"][7:], torch.from_numpy(np.array(buffers[2].actions)))
    assert np.allclose(dataset.final["observation", "desired_goal"][2], last["desired_goal"][-1])


def test_a_terminal_mark_inside_an_episode_is_reported_and_does_not_cut_it() -> None:
    buffers = [nested_buffer(spaces.Box(-1, 1, (2,)), spaces.Discrete(3), L, e) for e, L in enumerate((4, 5))]
    buffers[1].terminations[2] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = minari.create_dataset_from_buffers(
            "marks/inside-v0",
            buffers,
            observation_space=spaces.Box(-1, 1, (2,)),
            action_space=spaces.Discrete(3),
            **TOLD,
        )
    with pytest.warns(UserWarning, match="'marks/inside-v0': episode 1: step 2 is marked terminal, but the episode"):
        assert load_dataset(raw).lengths.tolist() == [4, 5]


def test_many_episodes_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, cache = cart_pole(), tmp_path / "cache"
    monkeypatch.setenv("RLMIN_CACHE", str(cache))
    plain = load_dataset("cart/rule-v0")
    monkeypatch.setattr("rlmin.data.store.MANY", stored.total_episodes)
    load_dataset("cart/rule-v0")
    assert not cache.exists()
    monkeypatch.setattr("rlmin.data.store.MANY", stored.total_episodes - 1)
    first = load_dataset("cart/rule-v0")
    monkeypatch.setattr("rlmin.data.minari._episodes", None)  # from now on nothing can be read
    second = load_dataset("cart/rule-v0")
    assert len(list(cache.iterdir())) == 1
    for found in (first, second):
        assert torch.equal(torch.as_tensor(found.step["action"]), torch.as_tensor(plain.step["action"]))
        assert torch.equal(found.returns, plain.returns)
    with pytest.raises(TypeError):
        load_dataset("cart/rule-v0", cache=False)


def test_a_selection_of_episodes_is_read_as_such() -> None:
    raw = cart_pole()
    chosen = raw.filter_episodes(lambda episode: len(episode) % 2 == 0)
    dataset = load_dataset(chosen)
    assert 0 < dataset.num_episodes < 9 and not (dataset.lengths % 2).any()
    mapped, all_mapped = (load_dataset(x, cache=True) for x in (chosen, raw))
    assert (mapped.num_episodes, all_mapped.num_episodes) == (dataset.num_episodes, 9)


def test_an_id_that_does_not_exist_says_where_it_was_looked_for_and_what_is_there(folder: Path) -> None:
    cart_pole()
    with pytest.raises(ValueError, match="did you mean 'cart/rule-v0'") as raised:
        load_dataset("cart/rules-v0")
    assert str(folder) in str(raised.value) and "could not be downloaded" in str(raised.value)
    with pytest.raises(ValueError, match="ends with a version"):
        load_dataset("cart/rule")


def test_damaged_files_are_named(folder: Path) -> None:
    cart_pole()
    file = folder / "cart" / "rule-v0" / "data" / "main_data.hdf5"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cart/rule-v0.*not copied whole"):
        load_dataset("cart/rule-v0")
    file.write_bytes(whole)
    metadata = file.with_name("metadata.json")
    metadata.write_text(metadata.read_text()[:40])
    with pytest.raises(ValueError, match=r"metadata\.json: not readable as JSON"):
        load_dataset("cart/rule-v0")


def test_more_steps_than_the_metadata_say_are_an_error(folder: Path) -> None:
    raw = cart_pole()
    metadata = folder / "cart" / "rule-v0" / "data" / "metadata.json"
    text = metadata.read_text()
    for wrong in (-1, 1):
        metadata.write_text(
            text.replace(f'"total_steps": {raw.total_steps}', f'"total_steps": {raw.total_steps + wrong}')
        )
        with pytest.raises(ValueError, match=f"expected {raw.total_steps + wrong} steps in 9 episodes"):
            load_dataset("cart/rule-v0")
