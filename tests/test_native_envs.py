"""Laws of every native environment: one game is a row of many, rows are strangers, states resume bit for bit."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from rlmin.envs import GAMES, register
from rlmin.envs.tensor_env import TensorEnv, Variant
from rlmin.vector import adapt, make_vec

register()

VARIANTS: dict[str, Variant] = {
    f"rlmin/{id}": variant
    for file in GAMES
    for id, variant in importlib.import_module(f"rlmin.envs.{file}").VARIANTS.items()
}
SHORT = [id for id, variant in VARIANTS.items() if variant.length <= 120]
every = pytest.mark.parametrize("id", sorted(VARIANTS))
short = pytest.mark.parametrize("id", sorted(SHORT))


def made(id: str, num_envs: int) -> TensorEnv:
    env = make_vec(id, num_envs)
    assert isinstance(env, TensorEnv)
    return env


def play(env: TensorEnv, steps: int, seed: int = 0) -> list[Tensor]:
    """Random actions, a stream of its own for each row."""
    space, streams = env.single_action_space, [np.random.default_rng((seed, row)) for row in range(env.num_envs)]
    return [torch.stack([torch.as_tensor(_action(space, stream)) for stream in streams]) for _ in range(steps)]


def _action(space: gym.Space[Any], stream: np.random.Generator) -> Any:
    if isinstance(space, spaces.Discrete):
        return stream.integers(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return stream.integers(space.nvec)
    assert isinstance(space, spaces.Box)
    return stream.uniform(space.low, space.high).astype(np.float32)


def leaves(observation: Any) -> list[Tensor]:
    if isinstance(observation, dict):
        return [leaf for part in observation.values() for leaf in leaves(part)]
    if isinstance(observation, tuple):
        return [leaf for part in observation for leaf in leaves(part)]
    return [torch.as_tensor(observation)]


def same(a: Any, b: Any) -> bool:
    return all(x.shape == y.shape and bool((x == y).all()) for x, y in zip(leaves(a), leaves(b), strict=True))


@every
@pytest.mark.filterwarnings("ignore:.*Box observation space m..imum value is")  # spaces are those of the originals
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
def test_gymnasium_accepts_the_single_form(id: str) -> None:
    check_env(gym.make(id).unwrapped, skip_render_check=True)


@every
def test_the_vector_form_declares_what_it_returns(id: str) -> None:
    env = made(id, 3)
    observation, _ = env.reset(seed=0)
    for t, action in enumerate(play(env, 5)):
        for leaf in leaves(observation):
            assert leaf.shape[0] == 3, t
        row = gym.vector.utils.iterate(env.observation_space, _numpy(observation))
        assert all(env.single_observation_space.contains(_typed(env.single_observation_space, x)) for x in row)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (torch.float32, torch.bool, torch.bool)
        assert reward.shape == terminated.shape == truncated.shape == (3,)


def _numpy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: _numpy(part) for name, part in observation.items()}
    return tuple(map(_numpy, observation)) if isinstance(observation, tuple) else observation.numpy()


def _typed(space: gym.Space[Any], x: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _typed(part, x[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_typed(part, y) for part, y in zip(space.spaces, x, strict=True))
    return np.int64(x) if isinstance(space, spaces.Discrete) else np.asarray(x).astype(space.dtype)


@short
def test_a_single_game_is_a_row_of_many(id: str) -> None:
    env, steps = made(id, 3), 2 * VARIANTS[id].length + 3
    singles = [gym.make(id, disable_env_checker=True) for _ in range(3)]
    observation, _ = env.reset(seed=[11, 5, 7])
    alone = [single.reset(seed=seed)[0] for single, seed in zip(singles, (11, 5, 7), strict=True)]
    for action in play(env, steps):
        for row, seen in enumerate(alone):
            assert _equal(observation, row, seen)
        observation, reward, terminated, truncated, infos = env.step(action)
        for row, single in enumerate(singles):
            given = action[row].numpy()
            seen, gain, over, cut, info = single.step(given if given.ndim else np.int64(given))
            assert gain == pytest.approx(float(reward[row]), abs=1e-6)
            assert (over, cut) == (bool(terminated[row]), bool(truncated[row]))
            if over or cut:
                assert _equal(infos["final_obs"], row, seen) and bool(infos["_final_obs"][row])
                assert info.get("is_success") == (bool(infos["is_success"][row]) if "is_success" in infos else None)
                seen, _ = single.reset()
            alone[row] = seen
    assert int(env.state["episode"].min()) >= 1, "no episode ended"


def _equal(observation: Any, row: int, seen: Any) -> bool:
    return all(
        bool((leaf[row] == torch.as_tensor(np.asarray(one))).all())
        for leaf, one in zip(leaves(observation), _parts(seen), strict=True)
    )


def _parts(seen: Any) -> list[Any]:
    if isinstance(seen, dict):
        return [leaf for part in seen.values() for leaf in _parts(part)]
    return [leaf for part in seen for leaf in _parts(part)] if isinstance(seen, tuple) else [seen]


@short
def test_a_row_depends_on_its_seed_and_actions_alone(id: str) -> None:
    many, two = made(id, 5), made(id, 2)
    everything, _ = many.reset(seed=[3, 1, 4, 15, 9])
    some, _ = two.reset(seed=[15, 1])
    for action in play(many, VARIANTS[id].length + 4):
        for here, there in zip(leaves(everything), leaves(some), strict=True):
            assert torch.equal(here[[3, 1]], there)
        everything, reward, *_ = many.step(action)
        some, other, *_ = two.step(action[[3, 1]])
        assert torch.equal(reward[[3, 1]], other)


@every
def test_seeds_and_episodes_differ(id: str) -> None:
    env = made(id, 24)
    first = env.reset(seed=0)[0]
    hidden = {name: part.clone() for name, part in env.state.items() if name not in ("seed", "episode")}
    assert same(env.reset(seed=0)[0], first), "the seed decides"
    env.reset()
    assert any(not torch.equal(env.state[name], part) for name, part in hidden.items()), "the next episode is another"
    assert any(bool((part != part[:1]).any()) for part in hidden.values()), "all rows drew the same game"


@short
def test_a_state_resumes_bit_for_bit(id: str) -> None:
    env, other = made(id, 4), made(id, 4)
    env.reset(seed=1)
    actions = play(env, VARIANTS[id].length + 9)
    for action in actions[:6]:
        seen = env.step(action)[0]
    state = env.get_state()
    assert same(other.set_state(state), seen)
    for action in actions[6:]:
        a, b = env.step(action), other.step(action)
        assert same(a[0], b[0]) and all(torch.equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))
    other.reset(seed=99)
    assert any(not torch.equal(part, other.state[name]) for name, part in env.state.items()), "without it, it differs"


@every
def test_states_are_never_written_into(id: str) -> None:
    env = made(id, 3)
    env.reset(seed=2)
    for action in play(env, 7):
        before = {name: part.clone() for name, part in env.state.items()}
        held = dict(env.state)
        env.step(action)
        assert all(torch.equal(part, held[name]) for name, part in before.items())


@every
def test_it_can_be_watched(id: str) -> None:
    for mode in ("ansi", "rgb_array"):
        env = gym.make(id, render_mode=mode, disable_env_checker=True)
        env.reset(seed=0)
        pictures: list[Any] = [env.render()]
        for _ in range(3):
            env.step(env.action_space.sample())
            pictures.append(env.render())
        if mode == "ansi":
            assert all(isinstance(text, str) and text for text in pictures)
        else:
            assert all(x.dtype == np.uint8 and x.shape == (480, 640, 3) for x in pictures), "a video needs one size"


@every
def test_the_training_loop_reads_it(id: str) -> None:
    vector = adapt(id, num_envs=2, seed=0)
    step = vector.reset()
    for action in play(made(id, 2), 3):
        step = vector.step(action)
    assert step.reward.shape == (2,)


@every
def test_bad_actions_are_named(id: str) -> None:
    env = made(id, 2)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(play(env, 1)[0])
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"use torch\.as_tensor"):
        env.step(env.action_space.sample())
    with pytest.raises(ValueError, match=r"actions: expected \[2"):
        env.step(play(made(id, 3), 1)[0])
    if not isinstance(env.single_action_space, spaces.Box):
        with pytest.raises(ValueError, match=r"actions\[1\]: expected one of"):
            env.step(torch.stack([play(env, 1)[0][0], torch.full_like(play(env, 1)[0][0], 999)]))


@every
def test_floor_and_ceiling_are_in_order(id: str) -> None:
    variant = VARIANTS[id]
    assert variant.floor < variant.ceiling and variant.length > 0
    assert variant.floor_policy and variant.ceiling_policy


@pytest.mark.needs("moviepy")
def test_gymnasiums_recorders_film_it(tmp_path: Path) -> None:
    env = gym.make("rlmin/GridMemoryS9View3-v0", render_mode="rgb_array")
    film = gym.wrappers.RecordVideo(env, str(tmp_path / "one"), episode_trigger=lambda _: True)
    film.reset(seed=0)
    for _ in range(5):
        film.step(film.action_space.sample())
    film.close()  # type: ignore[no-untyped-call]
    assert [file.suffix for file in (tmp_path / "one").iterdir()] == [".mp4"]


@pytest.mark.filterwarnings("ignore:.*autoreset mode is same-step")  # gymnasium's recorder drops the last frame then
@pytest.mark.needs("moviepy")
def test_gymnasiums_vector_recorder_films_it(tmp_path: Path) -> None:
    many = make_vec("rlmin/TMaze-v0", 3, length=2, render_mode="rgb_array")
    film = gym.wrappers.vector.RecordVideo(many, str(tmp_path / "many"), episode_trigger=lambda _: True)
    film.reset(seed=0)
    for _ in range(7):
        film.step(torch.zeros(3, dtype=torch.int64))
    film.close()
    assert {file.suffix for file in (tmp_path / "many").iterdir()} == {".mp4"}


def test_popgyms_own_package_works_beside() -> None:
    vector = adapt("popgym-RepeatPreviousEasy-v0", num_envs=2, seed=0)
    vector.reset()
    assert vector.step(torch.zeros(2, dtype=torch.int64)).reward.shape == (2,)


def test_close_closes() -> None:
    for id in VARIANTS:
        env = made(id, 2)
        assert not env.closed, f"{id}: `closed` is gymnasium's own name"
        env.close()
        assert env.closed
