"""Inputs: every kind of observation leaf becomes [..., width], and a rollout [T, B] gives what its steps [B] give.

Where an episode starts, previous action and reward are "none", whatever the tensors hold.
"""

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its environments)
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlmin.policy.heads import action_head
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD, Inputs, Numbers, Picture, Symbols
from rlmin.spaces import to_observation
from rlmin.types import Observation

T, B, WIDTH = 4, 3, 6


def picture(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


LEAVES: dict[str, gym.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (5,)),
    "number": spaces.Box(-1, 1, ()),
    "matrix": spaces.Box(-1, 1, (2, 5)),
    "vector of int64": spaces.Box(-9, 9, (5,), np.int64),
    "vector of uint8": spaces.Box(0, 255, (5,), np.uint8),
    "picture 84, channels last": picture(84, 84, 3),
    "picture 84, channels first": picture(4, 84, 84),
    "picture 20, channels last": picture(20, 20, 3),
    "picture 20, channels first": picture(1, 20, 20),
    "picture, not square": picture(40, 60, 3),
    "picture without channels": picture(20, 30),
    "picture of floats": spaces.Box(0, 1, (20, 30, 3)),
    "matrix of uint8": picture(4, 5),
    "symbols": picture(7, 7, 3),
    "discrete": spaces.Discrete(5),
    "discrete from -2": spaces.Discrete(5, start=-2),
    "multi-discrete": spaces.MultiDiscrete(np.array([[2, 3, 4], [5, 2, 7]]), start=np.array([[0, 1, 2], [-3, 4, 5]])),
    "multi-binary": spaces.MultiBinary([2, 5]),
    "nested": spaces.Dict(
        a=spaces.Dict(left=spaces.Box(-1, 1, (2,)), right=spaces.Discrete(4)),
        b=spaces.Tuple([spaces.MultiBinary(5), spaces.Box(-1, 1, ())]),
    ),
}

NONE = torch.zeros(T, B, dtype=torch.bool)


def drawn(space: gym.Space[Any], seed: int) -> Observation:
    """T batches of B observations as the environment would give them, leaves [T, B, ...]."""
    batched = batch_space(space, B)
    batched.seed(seed)
    steps = [to_observation(batched.sample(), space) for _ in range(T)]
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def at(observation: Observation, t: int) -> Observation:
    return {name: leaf[t] for name, leaf in observation.items()}


def inputs_of(space: gym.Space[Any], **switches: Any) -> Inputs:
    torch.manual_seed(0)
    return Inputs(space, WIDTH, **switches).double()


def check_a_rollout_equals_its_steps(inputs: Inputs, observation: Observation, start: Tensor = NONE) -> Tensor:
    y: Tensor = inputs(observation, start)
    assert y.shape == (T, B, WIDTH) and y.isfinite().all()
    torch.testing.assert_close(torch.stack([inputs(at(observation, t), start[t]) for t in range(T)]), y)
    assert not torch.allclose(torch.stack([inputs(at(observation, 0), start[0])] * T), y)
    return y


@pytest.mark.parametrize("name", LEAVES)
def test_a_rollout_gives_what_its_steps_give(name: str) -> None:
    inputs = inputs_of(LEAVES[name])
    with torch.no_grad():
        check_a_rollout_equals_its_steps(inputs, drawn(LEAVES[name], seed=1))


@pytest.mark.parametrize("name", LEAVES)
def test_every_leaf_has_a_say_and_rows_do_not_mix(name: str) -> None:
    inputs = inputs_of(LEAVES[name])
    first, second = drawn(LEAVES[name], seed=1), drawn(LEAVES[name], seed=2)
    with torch.no_grad():
        y = inputs(first, NONE)
        for leaf in first:
            changed = first[leaf].clone()
            changed[:, 1] = second[leaf][:, 1]
            z = inputs({**first, leaf: changed}, NONE)
            assert torch.equal(z[:, [0, 2]], y[:, [0, 2]])
            assert not torch.allclose(z[:, 1], y[:, 1])


def test_minigrids_own_observation_is_read_without_its_mission() -> None:
    env = gym.make("MiniGrid-MemoryS7-v0")
    space = env.observation_space
    raw = [env.reset(seed=0)[0], *(env.step(action)[0] for action in (2, 1, 2, 0, 2, 2, 1, 2, 2, 2, 0))]
    stacked = {key: np.stack([step[key] for step in raw]) for key in ("image", "direction")}
    leaves = to_observation(stacked, space)
    observation = {name: leaf.view(T, B, *leaf.shape[1:]) for name, leaf in leaves.items()}
    inputs = inputs_of(space)
    assert inputs.names == ("direction", "image") and isinstance(inputs.embed[1], Symbols)
    check_a_rollout_equals_its_steps(inputs, observation)


def test_pictures_and_grids_of_symbols_are_told_apart_by_their_size() -> None:
    kinds: dict[tuple[int, ...], type] = {
        (84, 84, 3): Picture,
        (3, 16, 16): Picture,
        (15, 40, 3): Symbols,
        (5, 5, 3): Symbols,
    }
    kinds |= {(84, 84): Picture, (16, 17): Picture, (15, 84): Numbers, (84,): Numbers}
    for shape, kind in kinds.items():
        assert isinstance(inputs_of(picture(*shape)).embed[0], kind), shape


def test_floats_are_a_picture_where_bounds_sides_and_channels_say_so() -> None:
    for low, high, shape, kind in [
        (0, 1, (20, 20, 3), Picture),
        (0, 255, (4, 20, 20), Picture),
        (-1, 1, (20, 20, 3), Picture),
        (-2, 1, (20, 20, 3), Numbers),
        (0, np.inf, (20, 20, 3), Numbers),
        (0, 1, (20, 20, 2), Numbers),
        (0, 1, (15, 20, 3), Numbers),
        (0, 1, (20, 20), Numbers),
    ]:
        assert isinstance(inputs_of(spaces.Box(low, high, shape)).embed[0], kind), (low, high, shape)


def test_a_picture_is_the_same_whatever_its_unit_and_whether_one_channel_has_an_axis() -> None:
    def read(space: spaces.Box, x: Tensor) -> Tensor:
        y: Tensor = inputs_of(space)({"observation": x}, NONE[0])
        return y

    x = drawn(picture(20, 21, 1), seed=3)["observation"][0]
    y = read(picture(20, 21, 1), x)
    torch.testing.assert_close(read(spaces.Box(0, 1, (20, 21, 1)), x / 255), y)
    torch.testing.assert_close(read(spaces.Box(0, 255, (20, 21, 1)), x.float()), y)
    torch.testing.assert_close(read(picture(20, 21), x.squeeze(-1)), y)
    assert not torch.allclose(read(spaces.Box(0, 1, (20, 21, 1)), x.float()), y)


def test_integers_are_scaled_by_their_bounds_and_other_numbers_are_not() -> None:
    def read(space: spaces.Box, x: Tensor, **switches: Any) -> Tensor:
        y: Tensor = inputs_of(space, **switches)({"observation": x}, NONE[0])
        return y

    x = torch.tensor([[0, 51, 255], [102, 7, 9], [1, 2, 3]])
    y = read(spaces.Box(0, 1, (3,)), x / 255)
    torch.testing.assert_close(read(picture(3), x.to(torch.uint8)), y, rtol=0, atol=1e-6)
    torch.testing.assert_close(read(spaces.Box(-300, -45, (3,), np.int64), x - 300), y, rtol=0, atol=1e-6)
    as_they_are = read(spaces.Box(-np.inf, np.inf, (3,)), x)
    assert not torch.allclose(as_they_are, y)
    whole = np.iinfo(np.int64)
    for space in (spaces.Box(whole.min, whole.max, (3,), np.int64), spaces.Box(0, 65536, (3,), np.int64)):
        torch.testing.assert_close(read(space, x), as_they_are)
    assert torch.equal(read(picture(3), x, normalize=True), read(spaces.Box(0, 255, (3,)), x, normalize=True))


def test_it_matters_where_a_symbol_lies_and_in_which_channel() -> None:
    inputs = inputs_of(picture(4, 5, 3))
    x = drawn(picture(4, 5, 3), seed=1)["observation"][0]
    y = inputs({"observation": x}, NONE[0])
    for axis in (1, 2, 3):
        assert not torch.allclose(inputs({"observation": x.flip(axis)}, NONE[0]), y)


def test_channels_of_a_cell_meet_before_cells_are_summed() -> None:
    inputs = inputs_of(picture(4, 5, 3)).double()

    def together(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
        """Of two entries, how far what both change is from what each changes: 0 where they only add up."""
        grid = torch.zeros(4, 4, 5, 3, dtype=torch.uint8)  # neither, the first, the second, both
        grid[1::2, *first] = 7
        grid[2:, *second] = 9
        with torch.no_grad():
            neither, one, other, both = inputs({"observation": grid}, torch.zeros(4, dtype=torch.bool))
        return float((neither - one - other + both).abs().max())

    assert together((1, 2, 0), (1, 2, 1)) > 1e-2  # a red ball
    assert together((1, 2, 0), (3, 2, 1)) < 1e-12  # a ball, and something red elsewhere


@pytest.mark.parametrize("size", [16, 20, 35, 36, 84])
def test_channels_first_and_last_are_the_same_picture(size: int) -> None:
    last, first = inputs_of(picture(size, size + 1, 3)), inputs_of(picture(3, size, size + 1))
    first.load_state_dict(last.state_dict())
    x = drawn(picture(size, size + 1, 3), seed=3)["observation"][0]
    with torch.no_grad():
        y = last({"observation": x}, NONE[0])
        torch.testing.assert_close(first({"observation": x.permute(0, 3, 1, 2)}, NONE[0]), y)
        assert not torch.allclose(last({"observation": x.flip(-1)}, NONE[0]), y)


# -- previous action and reward ---------------------------------------------------------------------------------------

ACTIONS: dict[str, tuple[gym.Space[Any], Tensor]] = {
    "discrete": (spaces.Discrete(5, start=3), torch.tensor([[1], [4], [2]])),
    "multi-discrete": (spaces.MultiDiscrete([2, 5]), torch.tensor([[1, 0], [0, 4], [1, 2]])),
    "multi-binary": (spaces.MultiBinary(2), torch.tensor([[1, 0], [0, 1], [1, 1]])),
    "box": (spaces.Box(-1, 1, (2,)), torch.tensor([[0.5, -1.0], [0.2, 0.0], [3.0, 1.0]])),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_previous_action_and_reward_do_not_matter_where_an_episode_starts(name: str) -> None:
    action_space, action = ACTIONS[name]
    inputs = inputs_of(LEAVES["vector"], action_space=action_space, previous_action=True, previous_reward=True)
    observation = at(drawn(LEAVES["vector"], seed=1), 0)
    first = {**observation, PREVIOUS_ACTION: action, PREVIOUS_REWARD: torch.tensor([1.0, -2.0, 0.5])}
    row = torch.tensor([False, True, False])
    for key, other in {PREVIOUS_ACTION: torch.zeros_like(action), PREVIOUS_REWARD: torch.full((B,), 9.0)}.items():
        second = {**first, key: other}
        here, there = inputs(first, row), inputs(second, row)
        assert torch.equal(here[1], there[1])
        assert (here[[0, 2]] != there[[0, 2]]).any(-1).all()
        assert not torch.allclose(inputs(first, ~row)[1], inputs(second, ~row)[1])


def test_a_previous_point_beyond_its_bounds_is_read_as_the_environment_took_it() -> None:
    space = gym.spaces.Box(np.array([-3.0, -np.inf], np.float32), np.array([1.0, 2.0], np.float32))
    inputs = inputs_of(LEAVES["vector"], action_space=space, previous_action=True)
    head, observation = action_head(space, 1), at(drawn(LEAVES["vector"], seed=1), 0)
    points = torch.tensor([[1.5, 7.0], [-1.5, -9.0], [0.3, -0.2]])
    taken = head.from_env(head.to_env(points))
    start = torch.zeros(B, dtype=torch.bool)
    read, wanted = (inputs({**observation, PREVIOUS_ACTION: x}, start) for x in (points, taken))
    assert torch.allclose(read, wanted) and not torch.equal(points, taken)
    assert taken.tolist() == [[1, 2], [-1, -9], [pytest.approx(0.3), pytest.approx(-0.2)]]


@pytest.mark.parametrize("name", ACTIONS)
def test_with_previous_action_and_reward_a_rollout_still_gives_what_its_steps_give(name: str) -> None:
    action_space, action = ACTIONS[name]
    inputs = inputs_of(LEAVES["vector"], action_space=action_space, previous_action=True, previous_reward=True)
    for parameter in (inputs.action, inputs.reward):
        assert parameter is not None
        parameter.none.data.normal_(generator=torch.Generator().manual_seed(2))
    observation = drawn(LEAVES["vector"], seed=1)
    observation[PREVIOUS_ACTION] = torch.stack([action.roll(t, 0) for t in range(T)])
    observation[PREVIOUS_REWARD] = torch.arange(T * B).view(T, B) / 10
    start = NONE.clone()
    start[0], start[2, 1] = True, True
    y = check_a_rollout_equals_its_steps(inputs, observation, start)
    assert not torch.allclose(inputs(observation, NONE), y)


def test_a_switched_leaf_may_not_have_the_name_of_one_of_the_environments() -> None:
    for name in (PREVIOUS_ACTION, PREVIOUS_REWARD):
        space = spaces.Dict({name: spaces.Box(-1, 1, (2,)), "x": spaces.Discrete(2)})
        with pytest.raises(ValueError, match=f"{name}=True, but the environment's own observation has a leaf"):
            inputs_of(space, action_space=spaces.Discrete(2), **{name: True})
        inputs_of(space)  # without the switch it is an ordinary leaf


def test_a_previous_action_needs_an_action_space() -> None:
    with pytest.raises(ValueError, match="previous_action=True needs action_space"):
        inputs_of(LEAVES["vector"], previous_action=True)


def test_an_unsupported_leaf_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="observation 'x' is a Sequence space"):
        inputs_of(spaces.Dict(x=spaces.Sequence(spaces.Discrete(2))))


# -- the running normaliser -------------------------------------------------------------------------------------------


def test_the_normaliser_sees_the_kept_rows_of_numeric_leaves_of_any_shape() -> None:
    space = spaces.Dict(n=spaces.Box(-9, 9, ()), v=spaces.Box(-9, 9, (2, 5)), d=spaces.Discrete(3), p=picture(7, 7, 3))
    inputs = inputs_of(space, normalize=True)
    observation = drawn(space, seed=1)
    keep = torch.rand(T, B, generator=torch.Generator().manual_seed(2)) < 0.6
    inputs.update_normalizer(observation, keep)
    embeds: list[tuple[str, Any]] = list(zip(inputs.names, inputs.embed, strict=True))
    norms = {name: embed.norm for name, embed in embeds if hasattr(embed, "norm")}
    assert set(norms) == {"n", "v", "d"}
    one_hot = torch.nn.functional.one_hot(observation["d"], 3)
    observation_of = observation | {"d": one_hot}
    for name, norm in norms.items():
        kept = observation_of[name][keep].double().reshape(int(keep.sum()), -1)
        torch.testing.assert_close(norm.mean, kept.mean(0))
        torch.testing.assert_close(norm.var, kept.var(0, correction=0))
        assert not torch.allclose(norm.mean, observation_of[name].double().reshape(T * B, -1).mean(0))
    before = inputs(observation, NONE)
    inputs.update_normalizer(observation, NONE)  # nothing kept, nothing changed
    assert torch.equal(inputs(observation, NONE), before)


def test_a_normalised_leaf_has_no_unit() -> None:
    space = spaces.Box(-np.inf, np.inf, (5,))
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(T, B, 5, generator=generator)
    outputs: dict[bool, list[Tensor]] = {True: [], False: []}
    for normalize, found in outputs.items():
        for unit in (1.0, 100.0):
            inputs = inputs_of(space, normalize=normalize)
            inputs.update_normalizer({"observation": unit * x}, ~NONE)
            found.append(inputs({"observation": unit * x}, NONE))
    torch.testing.assert_close(outputs[True][0], outputs[True][1], rtol=0, atol=1e-5)
    assert not torch.allclose(outputs[False][0], outputs[False][1], rtol=0, atol=1e-5)


def test_of_normalised_choices_the_constant_are_silent_and_the_rare_stand_out() -> None:
    """Two entries of which the first is nearly always 0 and the second always 2: the one-hot vectors are whitened."""
    space = spaces.MultiDiscrete([4, 5])
    x = torch.stack([(torch.arange(T * B) % 9 == 0).long(), torch.full((T * B,), 2)], -1).view(T, B, 2)
    plain, inputs = inputs_of(space), inputs_of(space, normalize=True)
    inputs.load_state_dict(plain.state_dict(), strict=False)
    before, wanted = inputs({"observation": x}, NONE), plain({"observation": x}, NONE)
    torch.testing.assert_close(before, wanted, rtol=0, atol=1e-3)  # nothing seen yet
    inputs.update_normalizer({"observation": x}, ~NONE)
    weight, bias = (y.detach() for y in inputs.embed[0].projection.parameters())  # type: ignore[union-attr]
    one_hot = torch.nn.functional.one_hot(x + torch.tensor([0, 4]), 9).sum(-2).double()
    mean, var = one_hot.mean((0, 1)), one_hot.var((0, 1), correction=0)
    with torch.no_grad():
        wanted = ((one_hot - mean) / (var + 1e-3).sqrt()) @ weight.T + bias
        torch.testing.assert_close(inputs({"observation": x}, NONE), wanted, rtol=0, atol=1e-5)
        rare, common = x[..., 0].nonzero()[0].tolist(), (1 - x[..., 0]).nonzero()[0].tolist()
        far = [(module({"observation": x}, NONE)[tuple(rare)] - bias).norm() for module in (inputs, plain)]
        near = [(module({"observation": x}, NONE)[tuple(common)] - bias).norm() for module in (inputs, plain)]
    assert far[0] > 4 * near[0] and far[1] < 2 * near[1], "not so without the normaliser"
