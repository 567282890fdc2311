"""Tasks of the literature: what perfect, forgetful and random policies score, and that draws are uniform."""

import importlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import permutations, product
from typing import Any

import pytest
import torch
from test_literature_games import (
    Moment,
    associative_recall,
    copy_delay,
    delayed_match,
    injected,
    modular_count,
    parity,
    passkey,
)
from torch import Tensor

from rlmin.envs.associative_recall import AssociativeRecall
from rlmin.envs.copy_delay import CopyDelay
from rlmin.envs.delayed_match import DelayedMatch
from rlmin.envs.modular_count import ModularCount, without_memory
from rlmin.envs.parity import Parity
from rlmin.envs.passkey import Passkey
from rlmin.envs.quiz import Quiz
from rlmin.envs.tensor_env import Variant

Seen = Sequence[Sequence[int]]

FILES = {
    "parity": Parity,
    "delayed_match": DelayedMatch,
    "modular_count": ModularCount,
    "copy_delay": CopyDelay,
    "associative_recall": AssociativeRecall,
    "passkey": Passkey,
}
VARIANTS: dict[str, tuple[type[Any], Variant]] = {
    id: (game, variant)
    for file, game in FILES.items()
    for id, variant in importlib.import_module(f"rlmin.envs.{file}").VARIANTS.items()
}
every = pytest.mark.parametrize("id", VARIANTS)


def solve(env: Any, seen: Seen) -> int:
    """The answer, from all that was seen in an episode, or as much of it as is still known; 0 where it is not known."""
    if isinstance(env, Parity):
        return sum(bit for bit, _ in (seen if env.window is None else seen[-env.window :])) % 2
    if isinstance(env, DelayedMatch):
        back = env.delay[0] if env.delay[0] == env.delay[1] else len(seen) - 1
        return int(back < len(seen) and seen[-1][0] == seen[-1 - back][0])
    if isinstance(env, ModularCount):
        return int(sum(env.increments[token] for token, _ in seen) % env.modulus)
    if isinstance(env, CopyDelay):
        row = [token - 1 for token, asked in seen if token and not asked]
        return row[(sum(asked for _, asked in seen) - 1) % len(row)] if row else 0
    if isinstance(env, AssociativeRecall):
        names = [name for name, _, asked in seen if name and not asked]
        values = [value - 1 for _, value, _ in seen if value]
        return dict(zip(names, values, strict=True)).get(seen[-1][0], 0)
    assert isinstance(env, Passkey)
    digits = [token - 1 for token, phase in seen if phase == 1]
    return digits[sum(phase == 2 for _, phase in seen) - 1]


def scored(env: Quiz, policy: Callable[[Tensor], Tensor], seed: int = 0) -> Tensor:
    """[B] returns of the first episodes."""
    seen, _ = env.reset(seed=seed)
    total, playing = torch.zeros(env.num_envs), torch.ones(env.num_envs, dtype=torch.bool)
    for _ in range(len(env.clock)):
        seen, reward, terminated, *_ = env.step(policy(seen))
        total, playing = total + reward * playing, playing & ~terminated
    assert not playing.any()
    return total


def remembering(env: Any, last: int | None = None) -> Callable[[Tensor], Tensor]:
    """`solve` on the last observations of each row's episode, asked where the marker wants an answer."""
    history: list[list[list[int]]] = [[] for _ in range(env.num_envs)]

    def act(seen: Tensor) -> Tensor:
        opened, wanted = (env.state["t"] == 0).tolist(), 2 if isinstance(env, Passkey) else 1
        said = []
        for row, now in enumerate(seen.tolist()):
            history[row] = [now] if opened[row] else [*history[row], now][-(last or len(env.clock)) :]
            said.append(solve(env, history[row]) if now[-1] == wanted else 0)
        return torch.tensor(said)

    return act


@every
def test_who_remembers_everything_scores_one(id: str) -> None:
    game, variant = VARIANTS[id]
    env = game(5, **variant.options)
    assert len(env.clock) == variant.length
    assert scored(env, remembering(env)).tolist() == pytest.approx([variant.ceiling] * 5, abs=1e-5)


@every
def test_random_and_memoryless_play_score_what_is_stated(id: str) -> None:
    game, variant = VARIANTS[id]
    env = game(800, **variant.options)
    generator, count = torch.Generator().manual_seed(0), env.single_action_space.n
    chance = scored(env, lambda seen: torch.randint(count, (800,), generator=generator))
    assert variant.random == pytest.approx(2 / count - 1)
    assert chance.mean() == pytest.approx(variant.random, abs=4 * _error(chance))
    if isinstance(env, ModularCount):
        adds = torch.tensor(env.increments)
        guesses = [scored(env, lambda seen, c=c: (adds[seen[:, 0]] + c) % count, seed=1) for c in range(count)]  # type: ignore[misc]
    else:
        guesses = [scored(env, lambda seen: seen[:, 0] * isinstance(env, Parity), seed=1)]
    found = max(guesses, key=lambda returns: float(returns.mean()))
    assert found.mean() == pytest.approx(variant.floor, abs=5 * _error(found))


def _error(returns: Tensor) -> float:
    return float(returns.std() / len(returns) ** 0.5) + 1e-6


@pytest.mark.parametrize(
    ("env", "last", "floor"),
    [
        (Parity(300, length=16), 15, 0.0),
        (Parity(300, window=8, length=(10, 33)), 7, 0.0),
        (DelayedMatch(300, delay=40), 40, 0.0),
        (DelayedMatch(300, delay=7, length=(10, 33)), 7, 0.0),
        (DelayedMatch(100, delay=16, length=64, streaming=True), 16, 0.0),
        (ModularCount(300, modulus=5, increments=(-1, 0, 1), length=40), 39, None),
        (CopyDelay(100, length=10, delay=50), 50, -0.75),
        (AssociativeRecall(100, pairs=8, keys=32, delay=8), 8, -0.75),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Quiz) else "",
)
def test_one_observation_less_than_the_task_needs_is_not_enough(env: Quiz, last: int, floor: float | None) -> None:
    short = scored(env, remembering(env, last))
    if floor is None:  # all but the first of three increments: right when that was 0
        assert short.mean() == pytest.approx(2 / 3 - 1, abs=4 * _error(short))
    else:
        assert short.mean() == pytest.approx(floor, abs=4 * _error(short))
    assert scored(env, remembering(env)).tolist() == pytest.approx([1.0] * env.num_envs, abs=1e-5)


def best(game: type[Quiz], options: dict[str, Any], scripts: Sequence[list[Moment]], last: int) -> float:
    """The best return of any policy of the last observations, where these episodes are equally likely: exact.

    What is shown does not depend on actions, so the best action is found for each thing seen by itself.
    """
    gains: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)
    env: Any = game(len(scripts), **options)
    for action in range(count := env.single_action_space.n):
        injected(env, scripts)
        for t in range(max(map(len, scripts))):
            reward = env.step(torch.full((len(scripts),), action))[1].tolist()
            for script, gain in zip(scripts, reward, strict=True):
                if t < len(script):
                    seen = tuple(moment[0] for moment in script[max(0, t + 1 - last) : t + 1])
                    gains[seen] = gains[seen] or [0.0] * count
                    gains[seen][action] += gain
    return sum(map(max, gains.values())) / len(scripts)


def streams(symbols: int, least: int, most: int) -> list[tuple[int, ...]]:
    """All streams of each length, repeated so that each length is as likely."""
    lengths = range(least, most + 1)
    return [s for n in lengths for s in product(range(symbols), repeat=n) for _ in range(symbols ** (most - n))]


def matches(symbols: int, delay: int) -> list[list[Moment]]:
    """All single trials, half of them matches."""
    return [
        delayed_match(s, delay)
        for s in product(range(symbols), repeat=delay + 1)
        for _ in range(symbols - 1 if s[0] == s[-1] else 1)
    ]


RECALLS = [
    associative_recall(list(zip(names, values, strict=True)), [asked], delay=2)
    for names in permutations(range(3), 2)
    for values in product(range(2), repeat=2)
    for asked in names
]


@pytest.mark.parametrize(
    ("game", "options", "scripts", "returns"),
    [
        (Parity, {"length": 7}, [parity(s) for s in streams(2, 7, 7)], {1: 0, 6: 0, 7: 1}),
        (
            Parity,
            {"length": (3, 6), "window": 3},
            [parity(s, window=3) for s in streams(2, 3, 6)],
            {1: 0, 2: 0, 3: 1},
        ),
        (
            Parity,
            {"length": 5, "streaming": True},
            [parity(s, streaming=True) for s in streams(2, 5, 5)],
            {1: 1 / 5, 3: 3 / 5, 5: 1},
        ),
        (DelayedMatch, {"delay": 3}, matches(2, 3), {1: 0, 3: 0, 4: 1}),
        (DelayedMatch, {"delay": 3, "symbols": 3}, matches(3, 3), {1: 0, 3: 0, 4: 1}),
        (
            DelayedMatch,
            {"delay": 2, "length": 6, "streaming": True},
            [delayed_match(s, 2, streaming=True) for s in streams(2, 6, 6)],
            {1: 0, 2: 0, 3: 1},
        ),
        (
            ModularCount,
            {"modulus": 3, "length": 5},
            [modular_count(s, 3, (0, 1)) for s in streams(2, 5, 5)],
            {1: without_memory(3, (0, 1), 5), 5: 1},
        ),
        (
            ModularCount,
            {"modulus": 5, "increments": (-1, 0, 1), "length": (1, 4)},
            [modular_count(s, 5, (-1, 0, 1)) for s in streams(3, 1, 4)],
            {1: without_memory(5, (-1, 0, 1), (1, 4)), 4: 1},
        ),
        (
            ModularCount,
            {"modulus": 3, "length": (2, 5), "streaming": True},
            [modular_count(s, 3, (0, 1), streaming=True) for s in streams(2, 2, 5)],
            {1: without_memory(3, (0, 1), (2, 5), streaming=True), 5: 1},
        ),
        (
            CopyDelay,
            {"length": 2, "delay": 2, "symbols": 3},
            [copy_delay([*row, None, None]) for row in product(range(3), repeat=2)],
            {1: -1 / 3, 4: -1 / 3, 5: 1},
        ),
        (
            AssociativeRecall,
            {"pairs": 2, "keys": 3, "values": 2, "queries": 1, "delay": 2},
            RECALLS,
            {1: 0, 3: 0, 4: 0.5, 5: 0.5, 6: 1},
        ),
        (
            Passkey,
            {"length": 3, "digits": 1, "symbols": 2, "depth": 0},
            [passkey(s, 0, 1) for s in streams(2, 4, 4)],
            {1: 0, 4: 0, 5: 1},
        ),
    ],
)
def test_the_best_of_all_policies_with_a_short_memory(
    game: type[Quiz], options: dict[str, Any], scripts: list[list[Moment]], returns: dict[int, float]
) -> None:
    for last, expected in returns.items():
        assert best(game, options, scripts, last) == pytest.approx(expected, abs=1e-5), last


def even(drawn: Tensor, count: int) -> bool:
    """Whether `count` different values occur in [n], equally often by chi-square, five standard deviations wide."""
    found = Counter(drawn.tolist())
    assert len(found) == count, "values that should not occur, or do not"
    expected = len(drawn) / count
    statistic = sum((times - expected) ** 2 / expected for times in found.values())
    return bool(statistic < count - 1 + 5 * (2 * (count - 1)) ** 0.5)


def spread(drawn: Tensor, least: int, most: int) -> bool:
    return even(drawn, most - least + 1) and (int(drawn.min()), int(drawn.max())) == (least, most)


def drawn(game: type[Quiz], **options: Any) -> dict[str, Tensor]:
    env: Any = game(12000, **options)
    env.reset(seed=0)
    return {name: part.long() for name, part in env.get_state().items()}


def test_the_joint_curriculum_draws_every_difficulty_equally_often() -> None:
    assert spread(drawn(Parity, length=(2, 32))["length"], 2, 32)
    assert spread(drawn(DelayedMatch, delay=(2, 40))["length"], 3, 41)
    assert spread(drawn(ModularCount, length=(2, 32))["length"], 2, 32)
    assert spread(drawn(AssociativeRecall, pairs=(1, 16), keys=16)["questions"], 1, 16)
    assert spread(drawn(Passkey, length=(0, 200))["length"], 10, 210)
    state = drawn(CopyDelay, length=(1, 10), delay=(0, 50))
    kept, delay = state["questions"], state["length"] - 2 * state["questions"]
    assert spread(kept, 1, 10) and spread(delay, 0, 50)
    assert even(100 * kept + delay, 510), "length and delay are independent"
    assert not even(state["length"], 69), "a control: a sum of the two is not even"


def test_what_is_shown_before_the_question_does_not_depend_on_when_it_comes() -> None:
    fixed, joint = drawn(Parity, length=9), drawn(Parity, length=(2, 9))
    before = torch.arange(10) < joint["length"].unsqueeze(1) - 1
    assert torch.equal(fixed["shown"][:, :, 0][before], joint["shown"][:, :, 0][before])
    assert not joint["shown"][:, :, 1][before].any()


def test_symbols_pairs_and_places_are_drawn_evenly() -> None:
    bits = drawn(Parity, length=12)
    assert even(bits["shown"][:, :12, 0].reshape(-1), 2) and even(bits["answer"][:, 11], 2)
    three = drawn(DelayedMatch, delay=4, symbols=3)
    sample, probe = three["shown"][:, 0, 0], three["shown"][:, 4, 0]
    apart = (probe - sample) % 3
    assert even(three["answer"][:, 4], 2) and even(sample, 3) and even(probe, 3)
    assert even((apart - 1)[apart > 0], 2), "each other symbol is as likely"
    backward = drawn(DelayedMatch, delay=2, symbols=3, length=9, streaming=True)
    assert even(backward["answer"][:, 2:].reshape(-1), 2) and even(backward["shown"][:, 8, 0], 3)
    scattered = drawn(CopyDelay, length=2, delay=3, symbols=4, selective=True)["shown"][:, :5, 0] > 0
    pattern = (scattered * 2 ** torch.arange(5)).sum(1)
    assert even(pattern, 10), "two of five steps"
    recall = drawn(AssociativeRecall, pairs=3, keys=4, values=3)["shown"]
    names, asked = recall[:, :6:2, 0] - 1, recall[:, 6:9, 0] - 1
    assert even((names * torch.tensor([16, 4, 1])).sum(1), 24), "three of four keys"
    place = (asked.unsqueeze(2) == names.unsqueeze(1)).long().argmax(2)
    assert even((place * torch.tensor([9, 3, 1])).sum(1), 6), "asked in any order"
    assert even(recall[:, 1:6:2, 1].reshape(-1) - 1, 3)
    marked = drawn(Passkey, length=11, digits=2)["shown"]
    assert even((marked[:, :, 1] == 1).long().argmax(1), 12) and even(marked[:, :13, 0].reshape(-1) - 1, 10)


def test_episodes_of_one_row_differ_in_length() -> None:
    env = Parity(3, length=(2, 9))
    env.reset(seed=0)
    lengths = []
    for _ in range(60):
        lengths.append(env.state["length"].tolist())
        env.step(torch.zeros(3, dtype=torch.int64))
    assert all(len(set(row)) > 4 for row in zip(*lengths, strict=True))
