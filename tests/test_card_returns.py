"""What policies score in the card games: perfect memory the ceiling, none the floor, both as stated."""

from collections.abc import Callable
from math import comb
from typing import Any

import pytest
import torch
from card_variants import GAMES, VARIANTS
from torch import Tensor

from rlmin.envs.autoencode import Autoencode
from rlmin.envs.concentration import Concentration
from rlmin.envs.count_recall import CountRecall
from rlmin.envs.higher_lower import HIGHER, LOWER, HigherLower
from rlmin.envs.repeat_first import RepeatFirst
from rlmin.envs.repeat_previous import RepeatPrevious
from rlmin.envs.tensor_env import TensorEnv

every = pytest.mark.parametrize("name", VARIANTS)


def of(*files: str) -> pytest.MarkDecorator:
    """Parametrised by the variants of these games."""
    return pytest.mark.parametrize("name", [name for name, (file, _) in VARIANTS.items() if file in files])


def made(name: str, rows: int) -> Any:
    file, variant = VARIANTS[name]
    return GAMES[file](rows, **variant.options)


# What policies score: `policy(seen)` gets all observations of the episode so far

Policy = Callable[[list[Any]], Tensor]


def returns(env: TensorEnv, policy: Policy, seed: int = 0) -> Tensor:
    """[B] float64: the returns of one episode in every row."""
    observation, _ = env.reset(seed=seed)
    seen, total = [observation], torch.zeros(env.num_envs, dtype=torch.float64)
    alive = torch.ones(env.num_envs, dtype=torch.bool)
    while bool(alive.any()):
        observation, reward, terminated, truncated, _ = env.step(policy(seen))
        total += reward.double() * alive
        alive &= ~(terminated | truncated)
        seen.append(observation)
    return total


def close(found: Tensor, expected: float, rounding: float = 0.0) -> bool:
    """The mean lies within four standard errors of the expected return, which was rounded by this much."""
    error = float(found.std()) / len(found) ** 0.5
    return bool(abs(float(found.mean()) - expected) <= 4 * error + rounding + 1e-6)


def coin(env: Any, seed: int = 0) -> Policy:
    generator = torch.Generator().manual_seed(seed)
    return lambda seen: torch.randint(int(env.single_action_space.n), (env.num_envs,), generator=generator)


def remembered(env: Any) -> Policy:
    """Perfect memory of what was seen; for every game but Concentration."""

    def previous(seen: list[Tensor]) -> Tensor:
        return seen[max(len(seen) - int(env.k), 0)]

    def backwards(seen: list[tuple[Tensor, Tensor]]) -> Tensor:
        return seen[min(2 * int(env.cards) - len(seen), len(seen)) - 1][1]

    def counted(seen: list[Tensor]) -> Tensor:
        values, asked = torch.stack(seen)[:, :, 0], seen[-1][:, 1]
        return (values == asked).sum(0)

    def likelier(seen: list[Tensor]) -> Tensor:
        shown, now = torch.stack(seen), seen[-1]
        above = 4 * env.decks * (12 - now) - (shown > now).sum(0)
        below = 4 * env.decks * now - (shown < now).sum(0)
        return torch.where(above >= below, HIGHER, LOWER)

    policies: dict[type[TensorEnv], Policy] = {
        RepeatFirst: lambda seen: seen[0],
        RepeatPrevious: previous,
        Autoencode: backwards,
        CountRecall: counted,
        HigherLower: likelier,
    }
    return policies[type(env)]


def forgetful(env: Any) -> Policy:
    """The stated floor policies; for every game but Concentration."""
    policies: dict[type[TensorEnv], Policy] = {
        RepeatFirst: lambda seen: torch.full_like(seen[0], 2),
        RepeatPrevious: lambda seen: (seen[-1] + 1) % 4,
        Autoencode: lambda seen: seen[-1][1],
        HigherLower: lambda seen: torch.where(seen[-1] < 6, HIGHER, LOWER),
    }
    if isinstance(env, CountRecall):
        best = torch.tensor([[max(law, key=law.__getitem__) for law in laws] for laws in laws_of_counts(env)])
        policies[CountRecall] = lambda seen: best[len(seen) - 1, (seen[-1][:, 0] == seen[-1][:, 1]).long()]
    return policies[type(env)]


def laws_of_counts(env: Any) -> list[list[dict[int, float]]]:
    """P(count = a) after t + 1 values, if the value in sight is of another kind than the query, and if of the same."""

    def drawn(total: int, marked: int, draws: int, a: int) -> float:
        return comb(marked, a) * comb(total - marked, draws - a) / comb(total, draws) if 0 <= a <= draws else 0.0

    c, m = env.cards, env.most
    return [
        [{a: drawn(c - 1, m - same, t, a - same) for a in range(m + 1)} for same in (0, 1)]
        for t in range(env.cards - 1)
    ]


@of("repeat_first", "repeat_previous", "autoencode", "count_recall")
def test_perfect_memory_scores_one(name: str) -> None:
    env = made(name, 64)
    found = returns(env, remembered(env))
    assert VARIANTS[name][1].ceiling == 1 and (found - 1).abs().max() < 1e-5


@of("higher_lower")
def test_card_counting_scores_little_more_than_a_threshold(name: str) -> None:
    env, variant = made(name, 4096), VARIANTS[name][1]
    found = returns(env, remembered(env))
    assert close(found, variant.ceiling, 0.0005) and not close(found, variant.floor)


@of("repeat_first", "repeat_previous", "autoencode", "count_recall", "higher_lower")
def test_the_floor_is_what_is_stated(name: str) -> None:
    env, variant = made(name, 1024), VARIANTS[name][1]
    assert close(returns(env, forgetful(env), seed=5), variant.floor, 0.0005)


@every
def test_random_play_scores_what_is_stated(name: str) -> None:
    env, variant = made(name, 1024), VARIANTS[name][1]
    assert variant.random is not None
    assert close(returns(env, coin(env), seed=9), variant.random, 0.0005)


@of("count_recall")
def test_the_floor_of_counting_is_exact(name: str) -> None:
    env, variant = made(name, 1), VARIANTS[name][1]
    kinds = env.cards // env.most
    hits = sum(max(a.values()) * (1 - 1 / kinds) + max(b.values()) / kinds for a, b in laws_of_counts(env))
    assert 2 * hits / (env.cards - 1) - 1 == pytest.approx(variant.floor, abs=5e-5)


@of("count_recall")
def test_the_papers_actions_cap_perfect_counting(name: str) -> None:
    env = CountRecall(1024, **VARIANTS[name][1].options, paper_actions=True)
    c, m, count = env.cards, env.most, remembered(env)
    found = returns(env, lambda seen: count(seen).clamp(max=m - 1))
    assert close(found, 1 - 2 * (c - m) / ((m + 1) * (c - 1))) and not close(found, 1.0)


@pytest.mark.parametrize(("difficulty", "expected"), [("Easy", -0.321), ("Medium", -0.422), ("Hard", -0.445)])
def test_counting_suits_without_order_beats_the_floor(difficulty: str, expected: float) -> None:
    env = made(f"RepeatPrevious{difficulty}", 1024)

    def commonest(seen: list[Tensor]) -> Tensor:
        return (torch.stack(seen[:-1] or seen).unsqueeze(2) == torch.arange(4)).sum(0).argmax(1)

    assert close(returns(env, commonest), expected, 0.0005)


def test_recalling_the_last_cards_scores_as_the_docstring_says() -> None:
    env = Autoencode(1024)
    perfect = remembered(env)

    def last(seen: list[Any]) -> Tensor:
        return perfect(seen) if len(seen) - env.cards < 8 else torch.zeros(1024, dtype=torch.int64)

    assert close(returns(env, last), 1.5 * 8 / 52 - 0.5)


class Pairs:
    """Concentration with perfect memory, greedily: turn a card whose partner is known, else a new one."""

    def __init__(self, env: Concentration) -> None:
        self.face_down, self.row = env.face_down, torch.arange(env.num_envs)
        self.known = torch.full((env.num_envs, env.cards), self.face_down)
        self.matched = torch.zeros(env.num_envs, env.cards, dtype=torch.bool)
        self.try_: list[Tensor] = []

    def __call__(self, seen: list[Tensor]) -> Tensor:
        self.known = torch.where(seen[-1] < self.face_down, seen[-1].long(), self.known)
        if len(self.try_) == 2:  # neither card was open before, so that all rows are at the same point of a try
            pair = torch.stack(self.try_, dim=1)
            kind = self.known.gather(1, pair)
            self.matched = self.matched.scatter(1, pair, (kind[:, :1] == kind[:, 1:]).expand(-1, 2))
            self.try_ = []
        wanted = self._partners() * 2 + (self.known == self.face_down)
        action = wanted.argmax(1)
        self.try_.append(action)
        return action

    def _partners(self) -> Tensor:
        """[B, C]: places whose card makes a known pair, with the card turned if there is one."""
        known = torch.where(self.matched, self.face_down, self.known)
        if not self.try_:
            number = (known.unsqueeze(2) == torch.arange(self.face_down)).sum(1)
            return (known < self.face_down) & (number.gather(1, known.clamp(max=self.face_down - 1)) > 1)
        first = self.try_[0]
        partner = known == self.known[self.row, first].unsqueeze(1)
        partner[self.row, first] = False
        return partner


@of("concentration")
def test_perfect_memory_finds_the_pairs(name: str) -> None:
    env, variant = made(name, 512), VARIANTS[name][1]
    assert close(returns(env, Pairs(env)), variant.ceiling, 0.0005)


@of("concentration")
def test_turning_closed_cards_needs_no_memory(name: str) -> None:
    env, variant = made(name, 512), VARIANTS[name][1]
    generator = torch.Generator().manual_seed(0)

    def closed(seen: list[Tensor]) -> Tensor:
        lot = torch.rand(seen[-1].shape, generator=generator)
        return torch.where(seen[-1] == env.face_down, lot, -1).argmax(1)

    assert close(returns(env, closed), variant.floor, 0.0005)


# Draws, pictures, options
