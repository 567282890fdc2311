"""The card games are popgym's, step for step: both are dealt its decks, and all that either returns is compared."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from card_variants import GAMES, VARIANTS
from torch import Tensor

from rlmin.envs import cards
from rlmin.envs.autoencode import Autoencode, AutoencodeEnv
from rlmin.envs.concentration import Concentration
from rlmin.envs.count_recall import CountRecall, CountRecallEnv
from rlmin.envs.higher_lower import HIGHER, LOWER, HigherLower, HigherLowerEnv
from rlmin.envs.repeat_first import RepeatFirst, RepeatFirstEnv
from rlmin.envs.repeat_previous import RepeatPrevious, RepeatPreviousEnv
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, TensorEnv

KINDS = {"colors": "colors_idx", "suits": "suits_idx", "ranks": "ranks_idx"}
every = pytest.mark.parametrize("name", VARIANTS)
easy = pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("Easy")])


def of(*files: str) -> pytest.MarkDecorator:
    """Parametrised by the variants of these games."""
    return pytest.mark.parametrize("name", [name for name, (file, _) in VARIANTS.items() if file in files])


def made(name: str, rows: int) -> Any:
    file, variant = VARIANTS[name]
    return GAMES[file](rows, **variant.options)


def original(file: str, name: str, **options: Any) -> Any:
    return getattr(importlib.import_module(f"popgym.envs.{file}"), name)(**options)


# Dealing popgym's cards to our games


def dealt(env: Any, original: Any) -> Game:
    """The entries of one row's hidden draw, read from popgym's shuffled decks (dealt from the end of `idx`)."""

    def row(deck: Any, kind: str) -> Tensor:
        return torch.from_numpy(getattr(deck, KINDS[kind])[deck.idx[::-1]].astype(np.uint8))

    if isinstance(env, CountRecall):
        value, query = (row(deck, env.deck_type) for deck in (original.value_deck, original.query_deck))
        count = torch.bincount(value[:1].int(), minlength=int(original.num_distinct_cards)).to(torch.int16)
        return {"value": value, "query": query, "count": count}
    if isinstance(env, Concentration):
        return {"kind": torch.from_numpy(original.deck_idx_type[original.deck.idx].astype(np.uint8))}
    return {"deck": row(original.deck, "ranks" if isinstance(env, HigherLower) else "suits")}


def deal(env: TensorEnv, originals: list[Any], seed: int) -> tuple[Any, list[Any]]:
    """Reset both, with equal cards; the first observations."""
    first = [one.reset(seed=seed + i)[0] for i, one in enumerate(originals)]
    env.reset(seed=0)
    rows = [dealt(env, one) for one in originals]
    entries = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    assert all(env.state[name].dtype == part.dtype for name, part in entries.items())
    return env.set_state(env.get_state() | entries), first


def right(env: Any) -> Tensor:
    """The action that wins most now, for one who sees the hidden state."""
    game: Game = env.state
    row = torch.arange(env.num_envs)
    if isinstance(env, Concentration):
        closed = game["open"] == env.face_down
        first = game["sight"][:, 1].clamp(min=0)
        partner = closed & (game["kind"] == game["kind"][row, first].unsqueeze(1))
        partner[row, first] = False
        return torch.where(game["waiting"].unsqueeze(1), partner, closed).int().argmax(1)
    t = game["t"]
    if isinstance(env, CountRecall):
        return game["count"][row, game["query"][row, t].long()].long()
    deck = game["deck"].long()
    if isinstance(env, HigherLower):
        return torch.where(deck[row, t + 1] > deck[row, t], HIGHER, LOWER)
    if isinstance(env, RepeatPrevious):
        return deck[row, (t + 1 - env.k).clamp(min=0)]
    return deck[row, (2 * env.cards - 2 - t).clamp(max=env.cards - 1)] if isinstance(env, Autoencode) else deck[:, 0]


def skilled(env: TensorEnv, stream: np.random.Generator, most: int) -> Tensor:
    """From row 0, which plays at random, to the last, which hardly errs; all actions below `most`."""
    skill = np.linspace(0, 0.98, env.num_envs)
    guess = torch.from_numpy(stream.integers(most, size=env.num_envs))
    return torch.where(torch.from_numpy(stream.random(env.num_envs) < skill), right(env).clamp(max=most - 1), guess)


def difference(env: TensorEnv, originals: list[Any], seen: Any, first: list[Any], seed: int) -> str | None:
    """Play an episode in every row; where the two differ first, or None."""
    stream, alive = np.random.default_rng(seed), list(range(len(originals)))
    most = int(min(env.single_action_space.n, originals[0].action_space.n))  # type: ignore[attr-defined]
    told = {i: _plain(seen, i) for i in alive if _plain(seen, i) != _listed(first[i])}
    if told:
        return f"reset: {told}"
    for t in range(10**4):
        action = skilled(env, stream, most)
        observation, reward, terminated, truncated, infos = env.step(action)
        reached = infos.get("final_obs", observation)
        for i in list(alive):
            wanted, gain, over, cut, _ = originals[i].step(int(action[i]))
            ours = (_plain(reached, i), bool(terminated[i]), bool(truncated[i]))
            theirs = (_listed(wanted), bool(over), bool(cut))
            if ours != theirs or abs(float(reward[i]) - gain) > 1e-6:
                return f"row {i}, t {t}, action {int(action[i])}: {ours}, {float(reward[i])}; popgym {theirs}, {gain}"
            if over or cut:
                alive.remove(i)
        if not alive:
            return None
    return "no end"


def _plain(observation: Any, row: int) -> Any:
    return [int(part[row]) for part in observation] if isinstance(observation, tuple) else observation[row].tolist()


def _listed(observation: Any) -> Any:
    return list(observation) if isinstance(observation, tuple) else np.asarray(observation).tolist()


# The laws


@every
def test_every_step_is_popgyms(name: str) -> None:
    env, originals = made(name, 12), [original(VARIANTS[name][0], name) for _ in range(12)]
    assert env.single_observation_space == originals[0].observation_space
    assert env.single_action_space == originals[0].action_space
    seen, first = deal(env, originals, seed=100)
    assert difference(env, originals, seen, first, seed=1) is None


@easy
def test_many_more_episodes_are_popgyms(name: str) -> None:
    env, originals = made(name, 40), [original(VARIANTS[name][0], name) for _ in range(40)]
    for seed in (500, 900):
        seen, first = deal(env, originals, seed=seed)
        assert difference(env, originals, seen, first, seed) is None


@easy
def test_one_card_exchanged_is_noticed(name: str) -> None:
    env, originals = made(name, 2), [original(VARIANTS[name][0], name) for _ in range(2)]
    _, first = deal(env, originals, seed=3)
    state = env.get_state()
    deck = next(part for entry, part in state.items() if entry in ("deck", "value", "kind"))
    deck[1, 20] = (deck[1, 20] + 1) % 2
    assert difference(env, originals, env.set_state(state), first, seed=5) is not None


@pytest.mark.parametrize(
    ("file", "options", "theirs"),
    [
        ("repeat_first", {"decks": 2}, {"num_decks": 2}),
        ("repeat_previous", {"k": 1}, {"k": 1}),
        ("repeat_previous", {"decks": 2, "k": 103}, {"num_decks": 2, "k": 103}),
        ("autoencode", {"decks": 4}, {"num_decks": 4}),
        ("count_recall", {"deck_type": "ranks"}, {"deck_type": "ranks"}),
        ("count_recall", {"decks": 3, "deck_type": "suits"}, {"num_decks": 3, "deck_type": "suits"}),
        ("count_recall", {"paper_actions": True}, {}),
        ("higher_lower", {"decks": 5}, {"num_decks": 5}),
        ("concentration", {"decks": 2}, {"num_decks": 2}),
        ("concentration", {"decks": 3, "deck_type": "colors"}, {"num_decks": 3, "deck_type": "colors"}),
    ],
)
def test_other_parameters_are_popgyms_too(file: str, options: dict[str, Any], theirs: dict[str, Any]) -> None:
    game = GAMES[file]
    env: TensorEnv = game(3, **options)
    originals = [original(file, game.__name__, **theirs) for _ in range(3)]
    assert env.single_observation_space == originals[0].observation_space
    seen, first = deal(env, originals, seed=7)
    assert difference(env, originals, seen, first, seed=8) is None


def test_another_lag_or_number_of_decks_is_noticed() -> None:
    env, originals = RepeatPrevious(2, k=5), [original("repeat_previous", "RepeatPrevious", k=4) for _ in range(2)]
    seen, first = deal(env, originals, seed=0)
    assert difference(env, originals, seen, first, seed=0) is not None


def test_a_last_pair_at_the_last_step_terminates_and_truncates() -> None:
    env, originals = Concentration(1, deck_type="colors"), [original("concentration", "ConcentrationEasy")]
    deal(env, originals, seed=0)
    for t in range(104):
        # 52 steps on one card, then perfect play: the last pair is found at the last step
        action = torch.zeros(1, dtype=torch.int64) if t < 52 else right(env)
        _, reward, terminated, truncated, infos = env.step(action)
        _, gain, over, cut, _ = originals[0].step(int(action))
        assert float(reward) == pytest.approx(gain)
        assert (bool(terminated), bool(truncated)) == (over, cut) == (t == 103, t == 103)
    assert bool(infos["is_success"])


def test_cards_are_numbered_as_popgym_numbers_them() -> None:
    deck = importlib.import_module("popgym.core.deck").Deck(2)
    card = torch.arange(104)
    for kind, theirs in ((cards.suit, deck.suits_idx), (cards.colour, deck.colors_idx), (cards.rank, deck.ranks_idx)):
        assert kind(card).tolist() == theirs.tolist()


def test_the_paper_could_not_answer_the_full_count() -> None:
    env = CountRecall(2, paper_actions=True)
    env.reset(seed=0)
    assert env.single_action_space == original("count_recall", "CountRecallEasy").action_space.__class__(26)
    env.step(torch.tensor([25, 25]))
    with pytest.raises(ValueError, match="expected one of Discrete"):
        env.step(torch.tensor([26, 26]))


def test_the_two_piles_of_count_recall_are_shuffled_apart() -> None:
    env = CountRecall(20_000, deck_type="ranks")
    env.reset(seed=0)
    for t, other in ((0, 0), (0, 1), (51, 51)):
        pair = env.state["value"][:, t].long() * 13 + env.state["query"][:, other].long()
        number, expected = torch.bincount(pair, minlength=169).double(), 20_000 / 169
        assert ((number - expected) ** 2 / expected).sum() < 168 + 5 * (2 * 168) ** 0.5, "chi-square, 168 degrees"


def test_every_card_comes_at_every_place() -> None:
    env = Concentration(20_000)
    env.reset(seed=1)
    number = torch.stack([(env.state["kind"] == rank).sum(0) for rank in range(13)]).double()
    expected = 20_000 / 13
    statistic, freedom = ((number - expected) ** 2 / expected).sum(), 12 * 51
    assert abs(float(statistic) - freedom) < 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("game", [RepeatFirstEnv, RepeatPreviousEnv, AutoencodeEnv, CountRecallEnv, HigherLowerEnv])
def test_pictures_tell_right_from_wrong(game: type[Single]) -> None:
    env = game(render_mode="ansi")
    for shift, verdict, never in ((0, "right", "wrong"), (1, "wrong", "right")):
        env.reset(seed=1)
        over, texts, gains = False, [], 0.0
        while not over:
            action = (int(right(env.inner)) + shift) % int(env.action_space.n)  # type: ignore[attr-defined]
            _, gain, over, _, _ = env.step(action)
            gains += gain
            texts.append(env.render())
        assert verdict in texts[-1] or "equal" in texts[-1]
        assert sum(verdict in text for text in texts) >= 40 and not any(never in text for text in texts)
        assert gains * (1 - 2 * shift) > 0.8


@pytest.mark.parametrize(
    ("game", "options", "message"),
    [
        (RepeatFirst, {"decks": 0}, "decks=0: expected at least 1"),
        (RepeatPrevious, {"decks": -1}, "decks=-1: expected at least 1"),
        (RepeatPrevious, {"k": 0}, r"k=0: expected 1\.\.51 with decks=1"),
        (RepeatPrevious, {"k": 52}, r"k=52: expected 1\.\.51 with decks=1"),
        (Autoencode, {"decks": 0}, "decks=0: expected at least 1"),
        (HigherLower, {"decks": 0}, "decks=0: expected at least 1"),
        (CountRecall, {"decks": 0}, "decks=0: expected at least 1"),
        (CountRecall, {"deck_type": "suit"}, "deck_type='suit': expected one of 'colors', 'suits', 'ranks'"),
        (Concentration, {"decks": 0}, "decks=0: expected at least 1"),
        (Concentration, {"deck_type": "suits"}, "deck_type='suits': expected one of 'colors', 'ranks'"),
    ],
)
def test_bad_options_are_refused(game: type[TensorEnv], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game(2, **options)
