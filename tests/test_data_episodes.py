"""Episodes in memory to a Dataset, the record itself, and every kind of bad input, named by episode and step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlmin.data import Dataset, Episode, load_dataset
from rlmin.policy.heads import action_head

LENGTHS = (4, 1, 7, 2)
D = 3


def episodes(**other: Any) -> list[Episode]:
    """Observations count up over all episodes, and the action names the observation it was taken in."""
    made, first = [], 0
    for e, L in enumerate(LENGTHS):
        numbers = np.arange(first, first + L + 1)
        observations = numbers[:, None] + np.array([0.0, 0.1, 0.2])
        parts = {"observations": observations, "actions": numbers[:-1] % 5, "rewards": numbers[:-1] * 0.5}
        made.append(Episode(**(parts | other), terminated=e % 2 == 0))
        first += L + 1
    return made


def changed(e: int, **parts: Any) -> list[Episode]:
    made = episodes()
    made[e] = replace(made[e], **parts)
    return made


def test_the_record_lays_episodes_end_to_end() -> None:
    dataset = load_dataset(episodes())
    assert (dataset.num_steps, dataset.num_episodes) == (14, 4)
    assert dataset.first.tolist() == [0, 4, 5, 12, 14] and dataset.lengths.tolist() == list(LENGTHS)
    seen = dataset.step["observation", "observation"][:, 0]
    assert seen.tolist() == [0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16]
    assert dataset.final["observation", "observation"][:, 0].tolist() == [4, 6, 14, 17]
    assert (dataset.step["action"][:, 0] == seen.long() % 5).all()
    assert dataset.terminated.tolist() == [True, False, True, False]
    assert dataset.step["reward"].dtype == torch.float32 and dataset.step.batch_size == torch.Size([14])
    assert load_dataset(dataset) is dataset


def test_spaces_are_read_off_the_values() -> None:
    dataset = load_dataset(episodes())
    assert dataset.action_space == spaces.Discrete(5)
    assert dataset.observation_space == spaces.Box(-np.inf, np.inf, (D,))
    nested = {"a": np.zeros((3, 2)), "b": (np.zeros((3, 4, 4, 1), np.uint8), np.array([1, 0, 6]))}
    made = [Episode(nested, np.array([[0, 3], [1, 2]]), [0.0, 1.0], True)]
    dataset = load_dataset(made)
    assert dataset.action_space == spaces.MultiDiscrete([2, 4])
    space: Any = dataset.observation_space
    assert space["b"] == spaces.Tuple((spaces.Box(0, 255, (4, 4, 1), np.uint8), spaces.Discrete(7)))
    assert set(dataset.step["observation"].keys()) == {"a", "b.0", "b.1"}
    binary = [Episode(nested, np.array([[True, False, True], [False, False, True]]), [0.0, 1.0], True)]
    assert load_dataset(binary).action_space == spaces.MultiBinary((3,))
    with pytest.raises(ValueError, match="actions: whole numbers from -1 on"):
        load_dataset(changed(0, actions=np.array([0, -1, 1, 0])))


ACTIONS = [
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([2, 5], start=[1, 0]),
    spaces.MultiBinary((2, 3)),
    spaces.Box(np.array([-1, -2], np.float32), np.array([3, 2], np.float32)),
    spaces.Box(-np.inf, np.inf, (2, 3)),
]


@pytest.mark.parametrize("space", ACTIONS, ids=lambda space: type(space).__name__)
def test_actions_are_what_an_action_head_takes_and_gives_back(space: spaces.Space[Any]) -> None:
    space.seed(0)
    made = [replace(x, actions=np.array([space.sample() for _ in x.rewards])) for x in episodes()]
    dataset = load_dataset(made, action_space=space)
    head = action_head(space, 3)
    assert dataset.step["action"].dtype == head.dtype and dataset.step["action"].shape == (14, *head.event_shape)
    raw = np.concatenate([x.actions for x in made])
    assert np.allclose(head.to_env(dataset.step["action"]).detach().numpy(), raw, atol=1e-6)
    assert head(torch.zeros(14, 3)).log_prob(dataset.step["action"]).shape == (14,)


def test_loading_draws_no_random_number() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_dataset(episodes())
    assert torch.equal(before, torch.random.get_rng_state())


def test_return_to_go_and_returns_are_those_of_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    lengths = (900, 1, 57, 342)
    made = [Episode(np.zeros((L + 1, 2)), np.zeros((L, 1)), draw.normal(5, 3, L), True) for L in lengths]
    dataset = load_dataset(made)
    wanted, reward = [], dataset.step["reward"].double().tolist()
    for a, b in zip(dataset.first[:-1].tolist(), dataset.first[1:].tolist(), strict=True):
        left, rest = 0.0, []
        for r in reversed(reward[a:b]):
            left += r
            rest.append(left)
        wanted += rest[::-1]
    loop = torch.tensor(wanted, dtype=torch.float64)
    assert torch.equal(dataset.return_to_go(), loop.float())
    assert torch.allclose(dataset.returns, loop[dataset.first[:-1]], rtol=1e-12)
    joined = torch.tensor(reward, dtype=torch.float64).flip(0).cumsum(0).flip(0)
    assert not torch.allclose(dataset.return_to_go().double(), joined), "as if it were one episode"


def rows(dataset: Dataset, e: int) -> torch.Tensor:
    seen: torch.Tensor = dataset.step["observation", "observation"]
    return seen[int(dataset.first[e]) : int(dataset.first[e + 1])]


def test_a_subset_has_the_chosen_episodes_in_their_order() -> None:
    dataset = load_dataset(episodes())
    for select in ([2, 0], [0, 1, 2, 3], [3], torch.tensor([1, 2]), torch.tensor([True, False, False, True]), [1, 1]):
        index = torch.as_tensor(select)
        chosen = index.nonzero().flatten().tolist() if index.dtype is torch.bool else index.tolist()
        subset = dataset.episodes(select)
        assert subset.lengths.tolist() == [LENGTHS[e] for e in chosen]
        assert torch.equal(subset.returns, dataset.returns[chosen])
        assert torch.equal(subset.terminated, dataset.terminated[chosen])
        for new, old in enumerate(chosen):
            assert torch.equal(rows(subset, new), rows(dataset, old))
            assert torch.equal(
                subset.final["observation", "observation"][new], dataset.final["observation", "observation"][old]
            )
    shared = dataset.episodes([1, 2]).step["reward"]
    assert shared.data_ptr() == dataset.step["reward"][4:].data_ptr(), "a run of episodes is a view"
    with pytest.raises(ValueError, match="no episode is selected"):
        dataset.episodes([])
    for wrong in ([4], [-1]):
        with pytest.raises(IndexError, match=r"expected episodes 0\.\.3"):
            dataset.episodes(wrong)


def test_a_record_whose_parts_do_not_fit_is_refused() -> None:
    dataset = load_dataset(episodes())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"terminated": dataset.terminated[:-1]}, "final: expected 3 entries, got 4"),
        ({"first": dataset.first + 1}, "step: expected 15 entries, got 14"),
        ({"first": torch.tensor([0, 4, 4, 12, 14])}, "episode 1: has no step"),
        ({"first": torch.tensor([0, 4, 3, 12, 14])}, "episode 1: has no step"),
    ]
    for parts, message in cases:
        with pytest.raises(ValueError, match=message):
            replace(dataset, **parts)


NAN, INF = float("nan"), float("inf")


def spoilt(value: float) -> np.ndarray:
    observations = np.array(episodes()[2].observations)
    observations[5, 1] = value
    return observations


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"observations": spoilt(NAN)}, "episode 2, step 5: observation 'observation', entry 1: .* got nan"),
    "inf": ({"observations": spoilt(INF)}, "episode 2, step 5: .* got inf"),
    "too large": ({"observations": spoilt(1e300)}, r"episode 2, step 5: .* a finite float32, got 1e\+300"),
    "final": ({"observations": np.append(np.zeros((7, D)), np.full((1, D), NAN), 0)}, "episode 2, step 7: .* got nan"),
    "reward": ({"rewards": [0, 0, 0, NAN, 0, 0, 0]}, "episode 2, step 3: reward: .* got nan"),
    "action": ({"actions": [0, 0, 0, 0, 5, 0, 0]}, r"episode 2, step 4: action.* a value of Discrete\(5\), got 5"),
    "kind": ({"actions": np.full(7, 0.5)}, r"action: expected \[\] of Discrete\(5\), got \[\] float64"),
    "long": ({"rewards": np.zeros(8)}, "episode 2: expected as many rewards as actions, 7, got 8"),
    "drift": ({"observations": np.zeros((7, D))}, "episode 2: .* expected 8 for 7 actions, .*got 7; the state after"),
    "shape": ({"observations": np.zeros((8, D + 1))}, r"episode 2: .* expected \(3,\), got \(4,\) a step"),
    "none": ({"actions": [], "rewards": []}, "episode 2: has no step"),
    "text": ({"observations": np.full((8, D), "x")}, "episode 2: observation 'observation': expected numbers"),
    "ragged": ({"observations": [[1.0], [1.0, 2.0]]}, "episode 2: .* lists of different lengths"),
    "object": ({"actions": 3}, "episode 2: actions: expected one for each step, got int"),
    "deep": ({"rewards": np.zeros((7, 2))}, r"episode 2: rewards: expected \(\) a step, got \(2,\)"),
}


@pytest.mark.parametrize("size", [1, 2**25])
@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_named_by_episode_and_step(case: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmin.data.episodes.BLOCK_BYTES", size)
    parts, message = BAD[case]
    options: dict[str, Any] = {"observation_space": spaces.Box(-9, 9, (D,)), "action_space": spaces.Discrete(5)}
    load_dataset(episodes(), **options)  # without the fault there is none
    with pytest.raises(ValueError, match=f"dataset 'episodes': {message}"):
        load_dataset(changed(2, **parts), **options)


def test_choices_in_observations_are_checked_and_shifted() -> None:
    space = spaces.Dict({"x": spaces.Discrete(6, start=1)})
    made = [Episode({"x": np.arange(1, L + 2) % 6 + 1}, np.zeros((L, 1)), np.zeros(L), False) for L in LENGTHS]
    assert load_dataset(made, observation_space=space).step["observation", "x"].tolist()[:5] == [1, 2, 3, 4, 1]
    made[2].observations["x"][6] = 7
    with pytest.raises(ValueError, match=r"episode 2, step 6: observation 'x': expected a value of Discrete.* got 7"):
        load_dataset(made, observation_space=space)
    made[2].observations["x"][6] = 1
    made[2].observations["x"][7] = 0
    with pytest.raises(ValueError, match=r"episode 2, step 7: observation 'x'"):
        load_dataset(made, observation_space=space)


def test_spaces_that_are_not_supported_are_named() -> None:
    graph = spaces.Sequence(spaces.Discrete(3))
    with pytest.raises(ValueError, match="dataset 'episodes': observation 'observation' is a Sequence"):
        load_dataset(episodes(), observation_space=graph)
    with pytest.raises(ValueError, match="dataset 'episodes': action space: expected Discrete"):
        load_dataset(episodes(), action_space=spaces.Dict({"a": spaces.Discrete(5)}))
    with pytest.raises(ValueError, match="observation 'goal' is declared by the space but missing in dataset"):
        load_dataset(episodes(), observation_space=spaces.Dict({"goal": spaces.Box(0, 1, (D,))}))


def test_sources_that_are_none() -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        load_dataset([])
    wrong: Any = [3]
    with pytest.raises(TypeError, match=r"episode 0: expected a rlmin\.data\.Episode, got int"):
        load_dataset(wrong)
    wrong = 3
    with pytest.raises(TypeError, match="expected an id, a path, a MinariDataset or a list of Episode, got int"):
        load_dataset(wrong)


def test_an_environment_can_be_named_for_any_source() -> None:
    dataset = load_dataset(episodes())
    assert dataset.env is None
    assert load_dataset(dataset, env="Hopper-v5").env == {"id": "Hopper-v5", "kwargs": {}, "workers": 0}
    told = {"id": "CartPole-v1", "kwargs": {"max_episode_steps": 9}}
    made = [Episode(np.zeros((L + 1, 4)), np.ones(L, int), np.ones(L), True) for L in LENGTHS]
    dataset = load_dataset(made, env=told)
    assert dataset.env == {**told, "workers": 0} and dataset.action_space == spaces.Discrete(2)
    assert load_dataset(made, env=told, action_space=spaces.Discrete(3)).action_space == spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"env: expected an id or .*, got \{'kwargs': \{\}\}"):
        load_dataset(made, env={"kwargs": {}})
