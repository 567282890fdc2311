"""MultiarmedBandit: step for step as the original, and its stated returns."""

from typing import Any

import numpy as np
import popgym.envs.multiarmed_bandit as popgym_bandit
import pytest
import torch
from game_laws import Policy, agrees, disagreements, halves, returns
from gymnasium.utils import seeding
from torch import Tensor

from rlmin.envs.multiarmed_bandit import VARIANTS, MultiarmedBandit
from rlmin.envs.tensor_env import Game

levels = pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])


class Thompson:
    """MultiarmedBandit: pull the best arm of a world drawn from the posterior."""

    def __init__(self, arms: int, rows: int) -> None:
        self.counts = np.ones((2, rows, arms))  # of payments and failures, one each to begin with
        self.last, self.stream = torch.zeros(rows, dtype=torch.int64), np.random.default_rng(0)

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        if t:
            self.counts[1 - seen.numpy(), np.arange(len(seen)), self.last.numpy()] += 1
        self.last = torch.as_tensor(self.stream.beta(self.counts[0], self.counts[1]).argmax(axis=1))
        return self.last


class StayOrShift:
    """MultiarmedBandit: the same arm after a payment, a random other one after none."""

    def __init__(self, arms: int, rows: int) -> None:
        self.arms, self.generator = arms, torch.Generator().manual_seed(2)
        self.last = torch.zeros(rows, dtype=torch.int64)

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        shift = torch.randint(1, self.arms, seen.shape, generator=self.generator)
        self.last = (self.last + shift * (seen == 0)) % self.arms
        return self.last


def any_arm(arms: int, rows: int) -> Policy:
    generator = torch.Generator().manual_seed(0)
    return lambda t, seen: torch.randint(arms, (rows,), generator=generator)


class Rigged(MultiarmedBandit):
    """Payments decided by given numbers [B, T]."""

    table: Tensor

    def luck(self, game: Game) -> Tensor:
        return self.table.gather(1, game["t"].unsqueeze(1)).squeeze(1)


def rigged(level: str, rows: int) -> tuple[Rigged, list[Any], Tensor]:
    """Our bandits and the original's, with equal arms and luck, and the first observation."""
    env = Rigged(rows, **VARIANTS[f"MultiarmedBandit{level}-v0"].options)
    originals = [getattr(popgym_bandit, f"MultiarmedBandit{level}")() for _ in range(rows)]
    streams = [seeding.np_random(11 + row)[0] for row in range(rows)]
    chance = [torch.as_tensor(stream.random(env.arms, dtype="float32")) for stream in streams]
    env.table = torch.stack([torch.as_tensor(stream.random(env.length)) for stream in streams])
    assert [original.reset(seed=11 + row)[0] for row, original in enumerate(originals)] == [0] * rows
    assert all(torch.equal(torch.as_tensor(x.bandits), y) for x, y in zip(originals, chance, strict=True))
    env.reset(seed=0)
    return env, originals, env.set_state(env.get_state() | {"chance": torch.stack(chance)})


@levels
def test_bandits_are_the_originals(level: str) -> None:
    rows = 100
    env, originals, seen = rigged(level, rows)
    assert env.single_action_space == originals[0].action_space
    assert env.single_observation_space == originals[0].observation_space
    assert disagreements(env, originals, seen, halves(StayOrShift(env.arms, rows), Thompson(env.arms, rows))) == 0


def test_other_luck_is_noticed() -> None:
    env, originals, seen = rigged("Easy", 3)
    env.table = env.table.roll(1, 1)
    assert disagreements(env, originals, seen, StayOrShift(env.arms, 3)) > 0


class Told:
    """A random stream that says what it was told to."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize("below", [2.0**-24, 2.0**-30, 0.0])
def test_luck_is_rounded_to_float32_as_in_the_original(below: float) -> None:
    """2^-30 below 3/4 is 3/4 in float32, and does not pay."""
    env, originals, _ = rigged("Easy", 1)
    originals[0].bandits[:] = 0.75
    originals[0].np_random = Told(0.75 - below)
    env.table = torch.full_like(env.table, 0.75 - below)
    state = env.get_state() | {"chance": torch.full((1, 10), 0.75)}
    assert disagreements(env, originals, env.set_state(state), lambda t, seen: torch.zeros(1, dtype=torch.int64)) == 0
    env.set_state(state)
    assert env.step(torch.tensor([3]))[0].item() == (below == 2.0**-24)


@levels
def test_bandits_score_as_stated(level: str) -> None:
    variant, rows = VARIANTS[f"MultiarmedBandit{level}-v0"], 200
    arms = int(variant.options["arms"])
    assert agrees(returns(MultiarmedBandit(rows, **variant.options), Thompson(arms, rows), seed=9), variant.ceiling)
    many = 1_000
    assert agrees(returns(MultiarmedBandit(many, **variant.options), StayOrShift(arms, many), seed=5), variant.floor)
    random = returns(MultiarmedBandit(many, **variant.options), any_arm(arms, many), seed=3)
    assert variant.random is not None and agrees(random, variant.random)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="arms=0"):
        MultiarmedBandit(1, arms=0)
