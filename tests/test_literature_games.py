"""Tasks of the literature: each game against its rules once more in plain Python, and by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rlmin.envs.associative_recall import AssociativeRecall, AssociativeRecallEnv
from rlmin.envs.copy_delay import CopyDelay
from rlmin.envs.delayed_match import DelayedMatch
from rlmin.envs.modular_count import ModularCount
from rlmin.envs.parity import Parity, ParityEnv
from rlmin.envs.passkey import Passkey
from rlmin.envs.quiz import NOTHING, Quiz

Moment = tuple[tuple[int, ...], int | None]  # what is seen, and the right answer where one is wanted
Seen = Sequence[Sequence[int]]


def parity(bits: Sequence[int], window: int | None = None, streaming: bool = False) -> list[Moment]:
    moments: list[Moment] = []
    for t, bit in enumerate(bits):
        wanted = (streaming and t + 1 >= (window or 1)) or t == len(bits) - 1
        counted = bits[: t + 1] if window is None else bits[t + 1 - window : t + 1]
        moments.append(((bit, int(wanted)), counted.count(1) % 2 if wanted else None))
    return moments


def delayed_match(symbols: Sequence[int], delay: int, streaming: bool = False) -> list[Moment]:
    moments: list[Moment] = []
    for t, symbol in enumerate(symbols):
        wanted = t >= delay if streaming else t == len(symbols) - 1
        moments.append(((symbol, int(wanted)), int(symbol == symbols[t - delay]) if wanted else None))
    return moments


def modular_count(
    tokens: Sequence[int], modulus: int, increments: Sequence[int], streaming: bool = False
) -> list[Moment]:
    moments: list[Moment] = []
    count = 0
    for t, token in enumerate(tokens):
        count += increments[token]
        wanted = streaming or t == len(tokens) - 1
        moments.append(((token, int(wanted)), count % modulus if wanted else None))
    return moments


def copy_delay(watched: Sequence[int | None], repeats: int = 1) -> list[Moment]:
    """`watched`: a symbol or None, a blank, for each step before the questions."""
    row = [symbol for symbol in watched if symbol is not None]
    moments: list[Moment] = [((0 if symbol is None else symbol + 1, 0), None) for symbol in watched]
    return moments + [((0, 1), symbol) for symbol in row * repeats]


def associative_recall(
    pairs: Sequence[tuple[int, int]], queries: Sequence[int], delay: int = 0, joined: bool = False
) -> list[Moment]:
    moments: list[Moment] = []
    for name, value in pairs:
        both = [(name + 1, value + 1, 0)] if joined else [(name + 1, 0, 0), (0, value + 1, 0)]
        moments += [(seen, None) for seen in both]
    moments += [((0, 0, 0), None)] * delay
    return moments + [((name + 1, 0, 1), dict(pairs)[name]) for name in queries]


def passkey(tokens: Sequence[int], place: int, digits: int) -> list[Moment]:
    moments: list[Moment] = [((token + 1, int(place <= t < place + digits)), None) for t, token in enumerate(tokens)]
    return moments + [((0, 2), token) for token in tokens[place : place + digits]]


def _again_parity(env: Parity, seen: Seen) -> list[Moment]:
    return parity([row[0] for row in seen], env.window, env.streaming)


def _again_match(env: DelayedMatch, seen: Seen) -> list[Moment]:
    delay = len(seen) - 1 if env.span is None else env.delay[0]
    return delayed_match([row[0] for row in seen], delay, env.streaming)


def _again_count(env: ModularCount, seen: Seen) -> list[Moment]:
    return modular_count([row[0] for row in seen], env.modulus, env.increments, env.streaming)


def _again_copy(env: CopyDelay, seen: Seen) -> list[Moment]:
    return copy_delay([row[0] - 1 if row[0] else None for row in seen if not row[1]], env.repeats)


def _again_recall(env: AssociativeRecall, seen: Seen) -> list[Moment]:
    names = [row[0] - 1 for row in seen if row[0] and not row[2]]
    values = [row[1] - 1 for row in seen if row[1]]
    blanks = sum(not any(row) for row in seen)
    asked = [row[0] - 1 for row in seen if row[2]]
    return associative_recall(list(zip(names, values, strict=True)), asked, blanks, env.each == 1)


def _again_passkey(env: Passkey, seen: Seen) -> list[Moment]:
    phases = [row[1] for row in seen]
    return passkey([row[0] - 1 for row in seen if row[1] < 2], phases.index(1), env.digits)


RULES: dict[type[Quiz], Callable[..., list[Moment]]] = {
    Parity: _again_parity,
    DelayedMatch: _again_match,
    ModularCount: _again_count,
    CopyDelay: _again_copy,
    AssociativeRecall: _again_recall,
    Passkey: _again_passkey,
}
"""From the hidden draw, read off a whole stream, the stream and its answers once more, by the rules."""

GAMES: list[tuple[type[Quiz], dict[str, Any]]] = [
    (Parity, {"length": 7}),
    (Parity, {"length": (1, 9)}),
    (Parity, {"length": (4, 11), "window": 4}),
    (Parity, {"length": (3, 8), "streaming": True}),
    (Parity, {"length": (4, 11), "window": 3, "streaming": True}),
    (DelayedMatch, {"delay": 5}),
    (DelayedMatch, {"delay": (1, 6), "symbols": 3}),
    (DelayedMatch, {"delay": 3, "length": (4, 12), "symbols": 4}),
    (DelayedMatch, {"delay": 3, "length": (5, 13), "symbols": 3, "streaming": True}),
    (ModularCount, {"modulus": 3, "length": 6}),
    (ModularCount, {"modulus": 5, "length": (1, 9), "increments": (-1, 0, 1)}),
    (ModularCount, {"modulus": 4, "length": (2, 7), "increments": (0, 1, 2, 3), "streaming": True}),
    (CopyDelay, {"length": 3, "delay": 4, "symbols": 5}),
    (CopyDelay, {"length": (1, 4), "delay": (0, 5), "symbols": 3, "repeats": 2}),
    (CopyDelay, {"length": (2, 4), "delay": (0, 7), "symbols": 3, "selective": True}),
    (AssociativeRecall, {"pairs": 3, "keys": 5, "values": 4}),
    (AssociativeRecall, {"pairs": (2, 5), "keys": 7, "values": 3, "queries": 2, "delay": (0, 3)}),
    (AssociativeRecall, {"pairs": (1, 4), "keys": 4, "values": 200, "joined": True}),
    (Passkey, {"length": (0, 9), "digits": 3, "symbols": 4}),
    (Passkey, {"length": (1, 9), "digits": 2, "symbols": 3, "depth": 0.5}),
]
games = pytest.mark.parametrize(("game", "options"), GAMES)


def replayed(game: type[Quiz], options: dict[str, Any], *, forged: bool = False) -> int:
    """Play some forty rows, compare every step with the rules in plain Python; how many episodes were compared.

    forged: one symbol of each stream is exchanged, the answers stay what they were.
    """
    env: Any = game(num_envs := 40, **options)
    generator = torch.Generator().manual_seed(1)
    observation, _ = env.reset(seed=5)
    scripts: list[list[Moment]] = [[] for _ in range(num_envs)]
    at, episodes = [0] * num_envs, 0
    for _ in range(8 * len(env.clock)):
        for row in range(num_envs):
            if at[row] == 0:
                if forged:
                    _forge(env, row)
                    observation = env.observe(env.state)
                seen = env.state["shown"][row, : int(env.state["length"][row])].tolist()
                scripts[row] = RULES[game](env, seen)
            assert observation[row].tolist() == list(scripts[row][at[row]][0])
        right = torch.tensor([scripts[row][at[row]][1] or 0 for row in range(num_envs)])
        guess = torch.randint(env.single_action_space.n, (num_envs,), generator=generator)
        action = torch.where(torch.rand(num_envs, generator=generator) < 0.5, right, guess)
        observation, reward, terminated, truncated, infos = env.step(action)
        assert not truncated.any()
        for row in range(num_envs):
            script, answer = scripts[row], scripts[row][at[row]][1]
            share = 1 / sum(moment[1] is not None for moment in script)
            expected = 0.0 if answer is None else share if action[row] == answer else -share
            assert float(reward[row]) == pytest.approx(expected, abs=1e-6), "reward"
            at[row] += 1
            assert bool(terminated[row]) == (at[row] == len(script))
            if terminated[row]:
                assert infos["final_obs"][row].tolist() == [0] * observation.shape[1]
                at[row], episodes = 0, episodes + 1
    return episodes


def _forge(env: Any, row: int) -> None:
    """Another symbol at the first step, another value of the first pair."""
    blank = isinstance(env, CopyDelay | AssociativeRecall | Passkey)
    where = (row, env.each - 1, 1) if isinstance(env, AssociativeRecall) else (row, 0, 0)
    was = int(env.state["shown"][where])
    env.state["shown"][where] = (2 if was == 1 else 1) if blank else int(was == 0)


@games
def test_every_step_is_as_the_rules_in_plain_python_say(game: type[Quiz], options: dict[str, Any]) -> None:
    assert replayed(game, options) > 300


@games
def test_another_symbol_in_the_stream_is_noticed(game: type[Quiz], options: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="reward"):
        replayed(game, options, forged=True)


def injected(env: Quiz, scripts: Sequence[list[Moment]]) -> None:
    """Put the env at the start of these episodes."""
    steps, width = len(env.clock), len(scripts[0][0][0])
    blank: Moment = ((0,) * width, None)
    whole = [script + [blank] * (steps + 1 - len(script)) for script in scripts]
    answer = [[NOTHING if right is None else right for _, right in script[:steps]] for script in whole]
    zero = torch.zeros(len(scripts), dtype=torch.int64)
    env.set_state(
        {
            "shown": torch.tensor([[seen for seen, _ in script] for script in whole], dtype=env.integer),
            "answer": torch.tensor(answer, dtype=env.integer),
            "length": torch.tensor([len(script) for script in scripts]),
            "questions": (torch.tensor(answer) != NOTHING).sum(1),
            "t": zero,
            "wrong": zero,
            "said": zero + NOTHING,
            "seed": zero,
            "episode": zero,
        }
    )


@pytest.mark.parametrize(
    ("env", "script", "said", "rewards"),
    [
        (Parity(length=4), parity([1, 0, 1, 1]), [0, 0, 0, 1], [0, 0, 0, 1]),
        (Parity(length=3, streaming=True), parity([1, 1, 0], streaming=True), [1, 1, 0], [1 / 3, -1 / 3, 1 / 3]),
        (Parity(length=(2, 5), window=2), parity([1, 1, 0], window=2), [0, 0, 1], [0, 0, 1]),
        (DelayedMatch(delay=2), delayed_match([1, 0, 1], 2), [1, 1, 0], [0, 0, -1]),
        (
            DelayedMatch(delay=2, length=4, streaming=True),
            delayed_match([1, 0, 1, 1], 2, streaming=True),
            [1, 1, 1, 1],
            [0, 0, 0.5, -0.5],
        ),
        (ModularCount(modulus=3, length=4), modular_count([1, 1, 1, 1], 3, (0, 1)), [0, 0, 0, 1], [0, 0, 0, 1]),
        (
            ModularCount(modulus=5, increments=(-1, 0, 1), length=2, streaming=True),
            modular_count([0, 0], 5, (-1, 0, 1), streaming=True),
            [4, 3],
            [0.5, 0.5],
        ),
        (CopyDelay(length=2, delay=1), copy_delay([7, 3, None]), [7, 3, 0, 7, 7], [0, 0, 0, 0.5, -0.5]),
        (
            CopyDelay(length=1, delay=1, repeats=2, selective=True),
            copy_delay([None, 6], repeats=2),
            [0, 0, 6, 6],
            [0, 0, 0.5, 0.5],
        ),
        (
            AssociativeRecall(pairs=2, joined=True, delay=1),
            associative_recall([(9, 3), (4, 5)], [4, 9], delay=1, joined=True),
            [0, 0, 0, 5, 5],
            [0, 0, 0, 0.5, -0.5],
        ),
        (Passkey(length=2, digits=2), passkey([8, 1, 2, 8], 1, 2), [0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 0.5, 0.5]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Quiz) else "",
)
def test_rewards_by_hand(env: Quiz, script: list[Moment], said: list[int], rewards: list[float]) -> None:
    injected(env, [script])
    told = [env.step(torch.tensor([action])) for action in said]
    assert [float(step[1]) for step in told] == pytest.approx(rewards)
    assert [bool(step[2]) for step in told] == [False] * (len(said) - 1) + [True]
    success = told[-1][4]["is_success"].tolist()
    assert success == [min(rewards) >= 0]


def test_a_board_shows_stream_answers_and_what_was_said() -> None:
    env = AssociativeRecallEnv(pairs=2, keys=12, values=3, render_mode="ansi")
    env.reset(seed=0)
    assert isinstance(env.inner, Quiz)
    injected(env.inner, [associative_recall([(11, 2), (4, 0)], [4, 11])])
    for action in (0, 0, 0, 0, 1):
        env.step(action)
    assert env.render() == (
        " 11   c   4   a  4? 11?\n"
        "  a   c\n"
        "step 5 of 6; 1 of 2 questions answered, 1 wrong\n"
        "said b, right was a\n"
        "above: the stream, now in yellow, ? asks; below: the answers"
    )  # fmt: skip


def test_a_single_game_tells_success() -> None:
    env = ParityEnv(length=1)
    seen, _ = env.reset(seed=0)
    assert env.step(int(seen[0]))[1:] == (1.0, True, False, {"is_success": True})


@pytest.mark.parametrize(
    ("game", "options", "message"),
    [
        (Parity, {"length": 0}, r"length=0: expected a number from 1 up"),
        (Parity, {"length": (5, 3)}, r"length=\(5, 3\): expected"),
        (Parity, {"length": (3, 9), "window": 4}, r"length=\(3, 9\): expected a number from 4 up"),
        (Parity, {"length": 2.5}, r"length=2.5: expected"),
        (Parity, {"length": (2, 3, 4)}, r"length=\(2, 3, 4\): expected"),
        (Parity, {"window": 0}, "window=0: expected at least 1"),
        (DelayedMatch, {"delay": 0}, "delay=0"),
        (DelayedMatch, {"symbols": 1}, "symbols=1"),
        (DelayedMatch, {"delay": 6, "length": 6}, "length=6: expected a number from 7 up"),
        (DelayedMatch, {"delay": (2, 3), "streaming": True}, r"delay=\(2, 3\): expected one number"),
        (DelayedMatch, {"delay": (2, 3), "length": 9}, r"delay=\(2, 3\): expected one number"),
        (ModularCount, {"modulus": 1}, "modulus=1"),
        (ModularCount, {"increments": (1,)}, r"increments=\(1,\)"),
        (CopyDelay, {"symbols": 1}, "symbols=1"),
        (CopyDelay, {"delay": -1}, "delay=-1"),
        (CopyDelay, {"symbols": 40000}, "at most 32767"),
        (AssociativeRecall, {"pairs": 5, "keys": 4}, "keys=4"),
        (AssociativeRecall, {"pairs": (2, 5), "queries": 3}, "queries=3: expected 1 to 2"),
        (Passkey, {"digits": 0}, "digits=0"),
        (Passkey, {"depth": 1.5}, "depth=1.5"),
    ],
)
def test_options_that_cannot_be_are_named(game: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(1, **options)
