"""Targets: what was asked for is what each row is told, what came of it is what is reported, in the right units."""

import csv
import math
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from rlmin.cli import main
from rlmin.data import Reference
from rlmin.evaluation.evaluate import Evaluation, evaluate
from rlmin.evaluation.play import RandomActor, play
from rlmin.evaluation.scores import score, unscore
from rlmin.evaluation.targets import Asked, TargetReport, evaluate_targets
from rlmin.policy import Policy, PolicyConfig, PolicyOutput
from rlmin.policy.heads import Categorical
from rlmin.types import Observation, State
from rlmin.vector import adapt
from rlmin.vector.episodes import Episode

LENGTH = 6
REFERENCE = Reference(random=1.0, expert=5.0, source="by hand")


class Wage(gym.Env[Any, Any]):
    """Six steps; action 1 pays 1, action 0 nothing; success is at least three."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)
    endless = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = self.earned = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t, self.earned = self.t + 1, self.earned + int(action)
        over = self.t == LENGTH and not self.endless
        return np.zeros(2, np.float32), float(action), over, False, {"is_success": self.earned >= 3} if over else {}


class Obedient(Policy):
    """Works for as long as more than 2.5 is still asked for; it was shown returns in units of 4."""

    def __init__(self) -> None:
        leaf = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        space = spaces.Dict({"observation": Wage.observation_space, "return_to_go": leaf})
        super().__init__(space, Wage.action_space, PolicyConfig(width=4, layers=1))
        self.steps = 0

    def step(
        self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None = None
    ) -> PolicyOutput:
        self.steps += 1
        wants = 4 * observation["return_to_go"] - 2.5
        logits = 50 * torch.cat([torch.zeros_like(wants), wants], dim=-1)
        return PolicyOutput(Categorical(logits.unsqueeze(-2)), wants.squeeze(-1), state)


def wages(mode: AutoresetMode, made: list[int] | None = None) -> Any:
    def make(rows: int) -> SyncVectorEnv:
        if made is not None:
            made.append(rows)
        return SyncVectorEnv([Wage] * rows, autoreset_mode=mode)

    return make


def paid(target: float) -> int:
    """By hand: a payment while target, target - 1, ... is above 2.5, at most one a step."""
    return min(max(math.ceil(target - 2.5), 0), LENGTH)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_target_is_played_in_one_batch_and_told_to_its_own_rows(mode: AutoresetMode) -> None:
    made: list[int] = []
    targets, policy = [2.0, 5.0, 20.0, 6.0], Obedient()
    report = evaluate_targets(policy, wages(mode, made), targets, episodes=5, num_envs=11, return_scale=4)
    assert made == [4 * 2], "two rows a target"
    assert [one.target for one in report.asked] == targets
    for one in report.asked:
        assert one.evaluation.returns.tolist() == [paid(one.target)] * 5, "in two rows, of which one plays three"
        assert one.evaluation.lengths.tolist() == [LENGTH] * 5
        assert one.evaluation.success_rate == (paid(one.target) >= 3)
    assert policy.steps <= 3 * (LENGTH + 1), "one step of all rows at a time"
    assert report.best.target == 20.0


def test_another_scale_is_another_request() -> None:
    make = wages(AutoresetMode.SAME_STEP)
    told = [
        evaluate_targets(Obedient(), make, [5.0], episodes=2, return_scale=scale).asked[0].evaluation.mean_return
        for scale in (4.0, 1.0)
    ]
    assert told == [paid(5.0), 5.0] and told[0] != told[1]


def report(reference: Reference | None) -> TargetReport:
    found = [
        Evaluation(returns=np.array([1.0, 3.0]), lengths=np.array([4, 7]), successes=np.array([True, False])),
        Evaluation(returns=np.array([5.0, 5.0]), lengths=np.array([9, 9]), successes=np.array([True, True])),
    ]
    asked = tuple(Asked(target=target, evaluation=one) for target, one in zip((2.5, 9.0), found, strict=True))
    return TargetReport(asked=asked, env="Wage", reference=reference, data=np.array([0.0, 2.0, 6.0]))


def test_scores_are_those_of_d4rl_by_hand() -> None:
    first, second = report(REFERENCE).rows()
    wanted = {"target_return": 2.5, "return_mean": 2.0, "return_se": 1.0, "length_mean": 5.5, "success_rate": 0.5}
    assert first == {**wanted, "episodes": 2, "target_score": 37.5, "score_mean": 25.0, "score_se": 25.0}
    assert second["target_score"] == 200 and second["score_mean"] == 100 and second["score_se"] == 0
    assert unscore(score(3.21, REFERENCE), REFERENCE) == pytest.approx(3.21, abs=1e-12)
    assert (score(np.array([1.0, 5.0]), REFERENCE) == [0, 100]).all()
    wrong = Reference(random=5.0, expert=1.0, source="swapped")
    assert score(2.0, wrong) != 25
    with pytest.raises(ValueError, match=r"random = 3, expert = 3 \(x\): these two are equal"):
        score(2.0, Reference(random=3.0, expert=3.0, source="x"))


def test_the_text_states_targets_scores_and_where_the_references_come_from() -> None:
    said = str(report(REFERENCE)).splitlines()
    assert said[0] == "targets on Wage"
    assert " ".join(said[1].split()) == "asked return s.e. asked score score s.e. length success episodes"
    assert " ".join(said[2].split()) == "2.500 2.000 1.000 37.5 25.0 25.0 5.5 50.0 % 2"
    assert said[-1] == "score = 100 (return - random) / (expert - random); random = 1, expert = 5 (by hand)"
    plain = str(report(None))
    assert "score" not in plain.splitlines()[1] and "no reference scores are known" in plain
    assert "--measure-reference" in plain and len({len(line) for line in said[1:4]}) == 1


def test_the_text_says_what_the_data_returned_and_what_should_not_be_overlooked() -> None:
    def said(achieved: list[float], spread: float, data: list[float]) -> str:
        found = [np.array([mean - spread, mean + spread]) for mean in achieved]
        played = [Evaluation(returns=x, lengths=np.array([3, 3]), successes=None) for x in found]
        asked = tuple(Asked(target=10.0 * (i + 1), evaluation=one) for i, one in enumerate(played))
        return str(TargetReport(asked=asked, data=np.array(data)))

    low, deaf = "note: below that mean at every target", "note: the achieved return hardly depends on"
    text = said([10, 20], 0.1, [5, 25])
    assert "the data: mean return 15.000, from 5.000 to 25.000" in text and low not in text and deaf not in text
    text = said([11, 11.2], 0.1, [5, 25])
    assert low in text and deaf in text
    text = said([16, 16.2], 0.1, [5, 25])
    assert low not in text and deaf in text
    text = said([11, 11.2], 9.0, [5, 25])
    assert low not in text and deaf not in text, "too few episodes to say so"


@pytest.mark.parametrize("reference", [REFERENCE, None])
def test_csv_and_picture(reference: Reference | None, tmp_path: Path) -> None:
    found = report(reference)
    found.write_csv(tmp_path / "t.csv")
    found.plot(tmp_path / "t.png")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["return_mean"]) for row in rows] == [2.0, 5.0] and rows[0]["env"] == "Wage"
    assert (rows[0].get("reference_source") == "by hand") == (reference is not None)
    assert ("score_mean" in rows[0]) == (reference is not None)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.png"]


def test_a_target_outside_the_data_is_warned_of() -> None:
    make = wages(AutoresetMode.SAME_STEP)
    data = np.array([0.0, 4.0, 6.0])
    with pytest.warns(UserWarning, match=r"target -1, 7\.5: outside the returns of the data, 0 to 6"):
        evaluate_targets(Obedient(), make, [-1.0, 0.0, 6.0, 7.5], episodes=1, data=data, return_scale=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_targets(Obedient(), make, [0.0, 6.0], episodes=1, data=data, return_scale=1)
        evaluate_targets(Obedient(), make, [100.0], episodes=1, return_scale=1)
        tenths = np.full(10, 0.1, np.float32).sum(dtype=np.float64)  # 1.0000000149, and less for other numbers
        evaluate_targets(Obedient(), make, [1.0, 2 * tenths - 1.0], episodes=1, data=np.array([tenths]), return_scale=1)


def test_whether_asking_matters_is_judged_inside_the_data() -> None:
    def told(*achieved: float) -> str:
        asked = zip((0.0, 6.0, 60.0), achieved, strict=True)
        found = [
            Asked(target=x, evaluation=Evaluation.of([Episode(return_=y, length=1, success=None)] * 9))
            for x, y in asked
        ]
        return str(TargetReport(asked=tuple(found), data=np.array([0.0, 6.0])))

    note = "hardly depends on the target"
    assert note not in told(0.0, 6.0, 1.0) and note in told(3.0, 3.0, 60.0)


def test_what_cannot_be_asked_is_refused() -> None:
    make = wages(AutoresetMode.SAME_STEP)
    plain = Policy(Wage.observation_space, Wage.action_space, PolicyConfig(width=4, layers=1))
    with pytest.raises(ValueError, match="at least one return to ask for"):
        evaluate_targets(Obedient(), make, [], return_scale=1)
    with pytest.raises(ValueError, match="reads no 'return_to_go'"):
        evaluate_targets(plain, make, [1.0], return_scale=1)
    with pytest.raises(ValueError, match=r"targets\[0\]: expected a number, got nan"):
        evaluate_targets(Obedient(), make, [math.nan], episodes=1, return_scale=1)
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        evaluate_targets(
            Obedient(), lambda rows: SyncVectorEnv([lambda: gym.make("CartPole-v1")] * rows), [1.0], return_scale=1
        )


@pytest.mark.parametrize("limit", [LENGTH, LENGTH - 1])
def test_an_episode_that_does_not_end_is_named_and_not_waited_for(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = adapt(SyncVectorEnv([Wage] * 3, autoreset_mode=AutoresetMode.NEXT_STEP))
    policy = Policy(Wage.observation_space, Wage.action_space, PolicyConfig(width=4, layers=1))
    monkeypatch.setattr(Wage, "endless", limit == LENGTH)
    with pytest.raises(ValueError, match=rf"environment \d has not ended its episode after {limit} steps; set a time"):
        evaluate(policy, vector, episodes=3, max_steps=limit)
    monkeypatch.setattr(Wage, "endless", False)
    assert len(evaluate(policy, vector, episodes=9, max_steps=LENGTH).returns) == 9


# -- chance -----------------------------------------------------------------------------------------------------------


class Masked(Wage):
    """Half of the choices are forbidden, by the parity of the step."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.MultiDiscrete([4, 2], start=[1, 0])  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed)[0], {"action_mask": self.mask()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask()[int(action[0]) - 1] and self.mask()[4 + int(action[1])]
        seen, _, over, cut, info = super().step(0)
        return seen, float(action[0]), over, cut, {**info, "action_mask": self.mask()}

    def mask(self) -> np.ndarray:
        return np.array([1, 0, 1, 1, 1, self.t % 2] if self.t % 2 else [0, 1, 0, 1, 1, 1], dtype=bool)


def test_random_actions_are_legal_and_equally_likely() -> None:
    rows = 300
    vector = adapt(SyncVectorEnv([Masked] * rows, autoreset_mode=AutoresetMode.SAME_STEP))
    paid: list[Tensor] = []
    for step in play(vector, RandomActor(vector.action_space, rows, seed=3), seed=0):
        paid.append(step.reward)
        if len(paid) == 1 + 2 * LENGTH:
            break
    odd = torch.cat(paid[2::2])
    for choice in (1, 3, 4):
        assert abs(float((odd == choice).float().mean()) - 1 / 3) < 4 * math.sqrt(2 / 9 / len(odd))
    other = [step.reward for step, _ in zip(play(vector, RandomActor(vector.action_space, rows, seed=3)), range(3))]  # noqa: B905
    assert torch.equal(other[2], paid[2]), "one seed, one sequence"


def test_random_points_are_what_the_space_samples() -> None:
    vector = adapt("Pendulum-v1", num_envs=500)
    action = RandomActor(vector.action_space, 500, seed=0)(vector.reset(seed=0))
    assert action.shape == (500, 1) and float(action.abs().max()) <= 2 and abs(float(action.std()) - 2 / 3**0.5) < 0.1


# -- from the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


PPO = ["train", "tmaze", "--width", "8", "--horizon", "10", "--num-envs", "4", "--minibatches", "2"]
PPO += ["--env-kwargs", "length=4", "--total-timesteps", "40", "--eval-episodes", "0", "--folder", "ppo"]


def test_a_run_is_evaluated_under_shift_and_scored(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(PPO)
    capfd.readouterr()
    evaluate_it = ["evaluate", "ppo", "--episodes", "40", "--deterministic", "False"]
    said = []
    for more in ([], ["--drop", "1"], ["--noise", "5"], ["--sticky", "1"], ["--reference", "-1", "1"]):
        main([*evaluate_it, *more])
        said.append(capfd.readouterr().out.splitlines())
    assert [len(lines) for lines in said] == [1, 2, 2, 2, 2]
    assert [lines[1] for lines in said[1:4]] == ["under drop 1", "under noise 5", "under sticky 1"]
    assert len({lines[0] for lines in said[:4]}) > 1 and said[4][0] == said[0][0]
    found = re.fullmatch(r"score (\S+), s\.e\. \S+; random = -1, expert = 1 \(given\)", said[4][1])
    mean = float(said[0][0].split()[1])
    assert found is not None and float(found[1]) == pytest.approx(50 * (mean + 1), abs=0.06)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--target-return", "1"], "is not return-conditioned"),
        (["--sticky", "2"], "sticky: expected a number from 0 to 1, got 2"),
        (["--measure-reference", "5"], "stores no returns of its data"),
        (["--max-steps", "3"], "has not ended its episode after 3 steps"),
    ],
)
def test_what_a_run_cannot_do_is_said_in_one_line(
    more: list[str], message: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(PPO)
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "ppo", *more])
    heard = capfd.readouterr().err
    assert ended.value.code == 2 and message in heard and heard.count("\n") == 1
