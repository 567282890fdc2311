"""D4RL files: rows to episodes, what is known of the last state, and files that are not what they should be."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlmin.data import Dataset, load_dataset
from rlmin.data.space_of import space_of

N, D, A = 23, 5, 2
TERMINALS, TIMEOUTS = [6, 13], [9, 20]  # rows; 21 and 22 are an unfinished episode
LENGTHS = [7, 3, 4, 7, 2]


def columns(**other: Any) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    terminals, timeouts = np.zeros(N, bool), np.zeros(N, bool)
    terminals[TERMINALS], timeouts[TIMEOUTS] = True, True
    observations = draw.normal(size=(N, D))
    return {
        "observations": observations.astype(np.float32),
        "actions": np.tanh(observations[:, :A]).astype(np.float32),  # so that a drift shows
        "rewards": draw.normal(size=N).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "next_observations": draw.normal(size=(N, D)).astype(np.float32),
        **other,
    }


def write(folder: Path, content: dict[str, Any], name: str = "hopper-medium-v2.hdf5") -> Path:
    path = folder / name
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[key] = value
    return path


def check_rows(dataset: Dataset, content: dict[str, Any]) -> None:
    seen = dataset.step["observation", "observation"]
    assert torch.equal(seen, torch.from_numpy(content["observations"]))
    assert torch.allclose(dataset.step["action"], seen[:, :A].tanh(), atol=1e-6)
    assert torch.equal(dataset.step["reward"], torch.from_numpy(content["rewards"]))


def test_marks_end_episodes_and_an_unfinished_tail_is_truncated(tmp_path: Path) -> None:
    content = columns()
    dataset = load_dataset(write(tmp_path, content))
    check_rows(dataset, content)
    assert dataset.lengths.tolist() == LENGTHS
    assert dataset.terminated.tolist() == [True, False, True, False, False]
    assert (dataset.name, dataset.env) == ("hopper-medium-v2", None)
    assert dataset.reference is not None and dataset.reference.random == -20.272305


def test_a_column_of_numbers_may_have_an_axis_of_its_own(tmp_path: Path) -> None:
    content = columns()
    wide = {key: content[key][:, None] for key in ("rewards", "terminals", "timeouts")}
    dataset = load_dataset(write(tmp_path, content | wide))
    check_rows(dataset, content)
    assert dataset.lengths.tolist() == LENGTHS


def test_a_column_called_metadata_is_none_of_its_entries(tmp_path: Path) -> None:
    content = columns()
    dataset = load_dataset(write(tmp_path, content | {"metadata": np.ones(N, np.float32)}))
    check_rows(dataset, content)


def test_columns_that_nobody_wrote_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path, {})
    with h5py.File(path, "w") as file:
        for key, value in columns().items():
            file.create_dataset(key, (10**10, *value.shape[1:]), value.dtype, chunks=True)
    with pytest.raises(ValueError, match="observations: expected 200,000,000,000 bytes, of which 0 are in the file"):
        load_dataset(path)


def test_columns_packed_as_well_as_can_be_are_read(tmp_path: Path) -> None:
    path, content = tmp_path / "zeros.hdf5", columns()
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            zeros = np.zeros((2 * 10**6, *value.shape[1:]), value.dtype)
            zeros[:: 10**5] = key in ("terminals", "timeouts")
            file.create_dataset(
                key, data=zeros, compression="gzip", compression_opts=9, chunks=(10**5, *value.shape[1:])
            )
    assert load_dataset(path, cache=tmp_path / "cache").num_steps == 2 * 10**6


def test_a_file_without_any_mark_is_warned_of(tmp_path: Path) -> None:
    never = np.zeros(N, bool)
    path = write(tmp_path, columns(terminals=never, timeouts=never))
    with pytest.warns(UserWarning, match="no terminal and no timeout is set, so its 23 steps are one"):
        assert load_dataset(path).lengths.tolist() == [N]


def test_a_file_that_ends_with_an_episode_has_no_tail(tmp_path: Path) -> None:
    content = {key: value[:21] for key, value in columns().items()}
    assert load_dataset(write(tmp_path, content)).lengths.tolist() == LENGTHS[:-1]


def test_the_last_state_is_the_next_observation_and_never_the_row_below(tmp_path: Path) -> None:
    content = columns()
    ends = np.cumsum(LENGTHS) - 1
    final = load_dataset(write(tmp_path, content)).final["observation", "observation"].numpy()
    assert np.array_equal(final, content["next_observations"][ends])
    assert not np.isin(final, content["observations"]).any(), "the reset of another episode"


def test_without_next_observations_the_last_state_is_unknown_and_said_to_be(tmp_path: Path) -> None:
    content = columns(next_observations=None)
    dataset = load_dataset(write(tmp_path, content))
    check_rows(dataset, content)  # no step is lost
    repeated = content["observations"][np.cumsum(LENGTHS) - 1]
    assert np.array_equal(dataset.final["observation", "observation"].numpy(), repeated)
    assert "not in the file" in dataset.recipe["final observation"]
    assert "final observation" not in load_dataset(write(tmp_path, columns(), "other.hdf5")).recipe


def test_spaces_come_from_the_values_the_caller_or_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, columns())
    assert load_dataset(path).action_space == spaces.Box(-1, 1, (A,))
    wide = spaces.Box(-2, 2, (A,))
    dataset = load_dataset(path, action_space=wide)
    assert dataset.action_space is wide
    assert torch.allclose(dataset.step["action"], load_dataset(path).step["action"] / 2)
    choices, four = np.arange(N) % 3, {"observations": np.zeros((N, 4)), "next_observations": None}
    discrete = write(tmp_path, columns(actions=choices, **four), "a.h5")
    assert load_dataset(discrete).action_space == spaces.Discrete(3)
    cart = load_dataset(write(tmp_path, columns(actions=choices % 2, **four), "b.h5"), env="CartPole-v1")
    assert cart.action_space == spaces.Discrete(2) and cart.env is not None and cart.env["id"] == "CartPole-v1"
    assert isinstance(cart.observation_space, spaces.Box) and cart.observation_space.high[2] < 1


def test_images_stay_small(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (N, 6, 7, 3), dtype=np.uint8)
    dataset = load_dataset(write(tmp_path, columns(observations=images, next_observations=None)))
    assert dataset.step["observation", "observation"].dtype == torch.uint8
    assert np.array_equal(dataset.step["observation", "observation"].numpy(), images)


def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = columns()
    path = write(tmp_path, content)
    for size in (1, 150, 300):  # bytes; a row has 28
        monkeypatch.setattr("rlmin.data.d4rl.BLOCK_BYTES", size)
        dataset = load_dataset(path)
        check_rows(dataset, content)
        assert dataset.lengths.tolist() == LENGTHS
        assert dataset.terminated.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals", "timeouts"])
def test_a_missing_key_and_a_column_of_another_length_are_named(tmp_path: Path, key: str) -> None:
    if key != "timeouts":  # without these the task's limit says where an episode was cut
        with pytest.raises(ValueError, match=f"'hopper-medium-v2': no key {key}; found"):
            load_dataset(write(tmp_path, columns(**{key: None})))
    with pytest.raises(ValueError, match=r"hopper-medium-v2.* expected \d+ .*, got"):
        load_dataset(write(tmp_path, columns(**{key: columns()[key][:-1]})))


BAD: dict[str, tuple[int, Any, str]] = {
    "observations": (8, np.nan, "episode 1, step 1: observation 'observation', entry 0: expected a finite float32"),
    "actions": (13, np.inf, "episode 2, step 3: action, entry 0: expected a finite float32, got inf"),
    "rewards": (22, np.nan, "episode 4, step 1: reward: expected a finite float32, got nan"),
    "next_observations": (9, np.nan, "episode 1, step 3: observation"),
}


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("key", BAD)
def test_a_value_that_is_not_finite_is_found_by_episode_and_step(
    tmp_path: Path, key: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmin.data.d4rl.BLOCK_BYTES", size)
    row, value, message = BAD[key]
    content = columns()
    content[key][(row, 0) if content[key].ndim == 2 else row] = value
    space = spaces.Box(-1, 1, (A,))
    with pytest.raises(ValueError, match=message):
        load_dataset(write(tmp_path, content), action_space=space)


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    for wrong, message in (
        ({"rewards": np.zeros((N, 2))}, r"rewards: expected \[N\]"),
        ({"terminals": np.full(N, 2)}, "terminals: expected 0 or 1, got 2 in row 0"),
        ({"actions": np.float32(3)}, "actions: expected an array"),
        ({"next_observations": np.zeros((N, D + 1))}, "next_observations: expected the shape"),
        ({key: value[:0] for key, value in columns().items()}, "at least one episode"),
        ({"observations": np.zeros((N, D), complex)}, "no space fits"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset(write(tmp_path, columns() | wrong))
    with pytest.raises(ValueError, match="no such file"):
        load_dataset(tmp_path / "none.hdf5")
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        file["episode_0/actions"] = [1]
    with pytest.raises(ValueError, match="inside of a Minari dataset"):
        load_dataset(path)


def test_a_file_cut_anywhere_is_an_error_that_says_so(tmp_path: Path) -> None:
    whole = write(tmp_path, columns()).read_bytes()
    path = tmp_path / "cut.hdf5"
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="damaged or was not copied whole"):
            load_dataset(path)
    path.write_bytes(b"not HDF5 at all" * 99)
    with pytest.raises(ValueError, match="damaged"):
        load_dataset(path)


def test_actions_beyond_their_box_are_kept_with_one_warning(tmp_path: Path) -> None:
    content = columns()
    content["actions"][[8, 15], 1] = 1.5
    with pytest.warns(UserWarning, match=r"2 actions lie outside .* the first is .*1\.5.* episode 1, step 1") as caught:
        dataset = load_dataset(write(tmp_path, content), action_space=spaces.Box(-1, 1, (A,)))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert dataset.step["action"][8, 1] == 1.5
    content["actions"][[8, 15], 1] = 1.0000001
    load_dataset(write(tmp_path, content), action_space=spaces.Box(-1, 1, (A,)))  # rounding is no news


@pytest.mark.parametrize(("kind", "action"), [(np.bool_, False), (np.bool_, True), (np.int64, True), (np.uint8, True)])
def test_choices_without_entries_have_no_space(kind: type, action: bool) -> None:
    with pytest.raises(ValueError, match=r"a: expected choices, got values of shape .*, which have no entries"):
        space_of([np.zeros((4, 3, 0), kind)], where="a", action=action)
    assert space_of([np.zeros((4, 3, 0), np.float32)], where="a", action=action).shape == (3, 0)
