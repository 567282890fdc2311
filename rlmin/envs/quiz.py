"""Quizzes: games in which an agent watches a stream of symbols and answers questions about it.

The stream and the right answers are drawn when an episode opens, so actions change only the reward.

    shown[t]      the observation at step t; its last entry is the phase: whether an answer is wanted now
    answer[t]     the right action at step t, or NOTHING where the game asks nothing and any action will do
    length        steps of the episode, then it terminates; the observation after the last step is all zeros
    reward        +1/Q for a right answer, -1/Q for a wrong one, 0 without a question; Q questions in the episode

All right scores 1, all wrong -1, and uniformly random actions among A score 2/A - 1 (popgym's scale). `is_success`: no
answer was wrong.

A difficulty is a span: a number, or a pair (least, most) from which every episode draws its own value uniformly.
Training on such a mixture is the joint curriculum; rows then have episodes of different lengths.
"""

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias, Unpack

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import pad

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import bits, integers, key
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

NOTHING = -1  # in `answer`: no question
LAST = torch.iinfo(torch.int64).max
CELLS = 24  # in a row of the board
LANE = 1 << 20  # draws of one kind of symbol; the first lane is for spans

Span: TypeAlias = int | tuple[int, int]


class Sheet(NamedTuple):
    """The hidden draw of B episodes; S is the most steps an episode can have."""

    shown: Tensor  # [B, S, C] integers
    answer: Tensor  # [B, S] integers
    length: Tensor  # [B] int64, 1..S; later entries of the other two are ignored


class Quiz(TensorEnv):
    """B quizzes: a subclass writes the sheet."""

    def __init__(self, num_envs: int, seen: Sequence[int], answers: int, steps: int, **shared: Unpack[Shared]) -> None:
        """Make the spaces.

        Args:
            num_envs: B.
            seen: number of values of each entry of an observation, C of them; the last is the phase.
            answers: number of actions.
            steps: S, the most steps of an episode.
            shared: device and render_mode, see `Shared`.
        """
        widest = max(*seen, answers)
        if widest > 32767:
            raise ValueError(f"{type(self).__name__}: {widest} symbols: expected at most 32767")
        observed, actions = spaces.MultiDiscrete(list(seen)), spaces.Discrete(answers)
        super().__init__(num_envs, observed, actions, **shared)
        self.integer = torch.int8 if widest < 128 else torch.int16
        self.clock = torch.arange(steps, device=self.device)

    @abstractmethod
    def sheet(self, key: Tensor) -> Sheet:
        """[B] int64 keys of episodes -> their sheets."""

    def lane(self, key: Tensor, number: int, width: int, count: int) -> Tensor:
        """[B, width] int64 symbols in 0..count-1 with equal chance; lanes 1, 2, ... do not overlap."""
        index = torch.arange(number * LANE, number * LANE + width, device=key.device)
        return integers(key.unsqueeze(1), index, count)

    def order(self, key: Tensor, number: int, among: Tensor) -> Tensor:
        """[B, width] int64: columns where `among` [B, width] in random order, then the others; from lane `number`."""
        index = torch.arange(number * LANE, number * LANE + among.shape[1], device=key.device)
        return bits(key.unsqueeze(1), index).masked_fill(~among, LAST).argsort(1)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """shown [B, S + 1, C], answer [B, S]; length, questions, t, wrong, said (the last action): [B] int64."""
        sheet = self.sheet(key(seed, episode))
        on = self.clock < sheet.length.unsqueeze(1)
        answer = sheet.answer.masked_fill(~on, NOTHING)
        nothing = torch.zeros_like(seed)
        return {
            "shown": pad((sheet.shown * on.unsqueeze(2)).to(self.integer), (0, 0, 0, 1)),
            "answer": answer.to(self.integer),
            "length": sheet.length,
            "questions": (answer != NOTHING).sum(1),
            "t": nothing,
            "wrong": nothing,
            "said": nothing + NOTHING,
        }

    def advance(self, game: Game, action: Tensor) -> Outcome:
        t = game["t"]
        answer = game["answer"].gather(1, t.unsqueeze(1)).squeeze(1)
        right = answer == action
        wrong = ~right & (answer != NOTHING)
        reward = (right.to(torch.int8) - wrong.to(torch.int8)) / game["questions"]
        changes = {"t": t + 1, "wrong": game["wrong"] + wrong, "said": action}
        return Outcome(changes, reward, terminated=t + 1 == game["length"])

    def observe(self, game: Game) -> Tensor:
        shown = game["shown"]
        return shown.gather(1, game["t"].view(-1, 1, 1).expand(-1, 1, shown.shape[2])).squeeze(1).long()

    def success(self, game: Game) -> Tensor:
        return game["wrong"] == 0

    def glyph(self, seen: list[int]) -> str:
        """An observation in at most three characters."""
        return f"{seen[0]}{'?' if seen[-1] else ''}"

    def name(self, answer: int) -> str:
        """An action in at most three characters."""
        return str(answer)

    def board(self, game: Game) -> Board:
        """Above, the stream around the present step; below, the answers of the whole episode; grey is still to come."""
        t, length, said = int(game["t"]), int(game["length"]), int(game["said"])
        shown, answer = game["shown"].tolist(), game["answer"].tolist()
        first = max(0, min(t - 2 * CELLS // 3, length - CELLS))
        stream = [
            Cell(self.glyph(shown[i]), "cue" if i == t else "empty" if i < t else "hidden")
            for i in range(first, min(first + CELLS, length))
        ]
        asked = [i for i in range(length) if answer[i] != NOTHING]
        cells = [Cell(self.name(answer[i]), _colour(i - t, answer[i] == said)) for i in asked]
        answered = sum(i < t for i in asked)
        caption = f"step {t} of {length}; {answered} of {len(asked)} questions answered, {int(game['wrong'])} wrong"
        if t and answer[t - 1] != NOTHING:
            caption += f"\nsaid {self.name(said)}, right was {self.name(answer[t - 1])}"
        caption += "\nabove: the stream, now in yellow, ? asks; below: the answers"
        return Board([stream, *(cells[i : i + CELLS] for i in range(0, len(cells), CELLS))], caption)


def _colour(ahead: int, right: bool) -> str:
    """Colour of an answer that is due in `ahead` steps."""
    if ahead == -1:
        return "goal" if right else "bad"
    return "hidden" if ahead > 0 else "cue" if ahead == 0 else "empty"


def span(name: str, value: Span | Sequence[int], least: int) -> tuple[int, int]:
    """`value` as (least, most), the bounds of a draw.

    Raises:
        ValueError: `value` is neither a number nor an ascending pair, or is below `least`.
    """
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(x, Integral) for x in pair) or not least <= pair[0] <= pair[1]:
        raise ValueError(f"{name}={value!r}: expected a number from {least} up, or a pair (least, most)")
    return int(pair[0]), int(pair[1])


def longest(length: Span) -> int:
    """The largest value that a span can draw."""
    return length if isinstance(length, int) else length[1]


def describe_variant(
    options: dict[str, Any], length: int, policies: tuple[str, str], *, chance: float, floor: float | None = None
) -> Variant:
    """A registered id of a quiz; perfect answers return 1.

    Args:
        options: for the constructor.
        length: the most steps of an episode.
        policies: the best one without memory and the best one with it, in words.
        chance: mean return of random answers.
        floor: mean return without memory; None: it is chance.
    """
    return Variant(
        options=options,
        length=length,
        random=chance,
        floor=chance if floor is None else floor,
        floor_policy=f"no memory: {policies[0]}",
        ceiling=1.0,
        ceiling_policy=policies[1],
    )


def draw_span(key: Tensor, index: int, span: tuple[int, int | Tensor]) -> Tensor:
    """[B] keys -> [B] int64, uniform over the span; each span of a game has its own `index`."""
    return span[0] + integers(key, torch.full_like(key, index), span[1] - span[0] + 1)
