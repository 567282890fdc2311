"""`rlmin inspect RUN`: the probes behind it, the page, and which runs and datasets it takes."""

import base64
import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rlmin.agents.decision import DecisionAgent
from rlmin.agents.ppo import PPO
from rlmin.cli import main
from rlmin.commands.evaluate import load_run
from rlmin.commands.inspect import Inspect, is_run, parse_vary, subject_of_run
from rlmin.data import Episode
from rlmin.evaluation.evaluate import Evaluation
from rlmin.evaluation.play import play
from rlmin.inspection.delays import Varied, knob, play_varied
from rlmin.inspection.findings import list_findings
from rlmin.inspection.lengths import UnwipedActor, by_age, norms
from rlmin.inspection.report import report
from rlmin.inspection.study import affordable, study
from rlmin.inspection.subject import Subject, play_and_keep, shrink
from rlmin.inspection.time_scales import share_beyond, time_scales
from rlmin.inspection.wipe import WipedActor, divergence, measure_forgetting, wipe_returns
from rlmin.inspection.wipe_pictures import draw_wipes
from rlmin.policy import Policy
from rlmin.policy.heads import Categorical, Gaussian
from rlmin.types import Observation, State, map_state, tensors_of
from rlmin.vector.arena import Arena
from rlmin.vector.episodes import Episode as Done

LENGTH, WIDTH, ROWS = 5, 8, 3


def agent_of(encoder: str = "min_gru", **more: Any) -> PPO:
    settings: dict[str, Any] = {"width": WIDTH, "num_envs": 2, "horizon": 7, **more}
    return PPO("rlmin/TMaze-v0", env_kwargs={"length": LENGTH}, encoder=encoder, **settings)


def subject_of(policy: Policy, id: str = "rlmin/TMaze-v0", **kwargs: Any) -> Subject:
    kwargs = kwargs or {"length": LENGTH}
    return Subject(policy=policy, arena=Arena(id=id, kwargs=kwargs), horizon=7, trained_in=kwargs, seed=3)


def played_by(subject: Subject, rows: int = ROWS) -> Any:
    vector = subject.vector(rows)
    return play_and_keep(vector, subject.actor(rows), steps=20, seed=subject.seed, episodes=True)


class Oracle(Policy):
    """Goes right, and at the junction to the side it was shown: its one unit of memory holds the cue."""

    def __init__(self) -> None:
        agent = agent_of()
        super().__init__(agent.policy.observation_space, agent.policy.action_space, agent.config)
        self.seen: list[State] = []

    def initial_state(self, rows: int) -> State:
        return (torch.zeros(rows, 1),)

    def step(self, observation: Observation, state: State, start: Tensor, action_mask: Tensor | None = None) -> Any:
        end, side = observation["observation"].unbind(1)
        held = torch.where(start, 0.0, tensors_of(state)[0][:, 0])
        held = torch.where(end > 0, held, held + side)
        choice = torch.where(end > 0, torch.where(held > 0, 1, torch.where(held < 0, 3, 0)), 0)
        logits = 20 * torch.nn.functional.one_hot(choice, 4).float()

        class Out:
            distribution = Categorical(logits[:, None])
            state = (held[:, None],)

        return Out


def test_an_oracle_that_is_wiped_plays_without_what_it_saw() -> None:
    """Wiped before its first step it loses nothing; later it does not turn: success 0. An unwiped one is confused."""
    subject = subject_of(Oracle())
    assert subject.evaluate(12).success_rate == 1
    once, always = wipe_returns(subject, [0, 1, 4], episodes=12)
    assert [once[t].success_rate for t in (0, 1, 4)] == [1, 0, 0]
    assert always.success_rate == 0
    kept = subject.evaluate(48, actor=lambda rows: UnwipedActor(subject.policy, rows))
    assert kept.success_rate == 1  # one episode each: nothing older to confuse it
    vector = subject.vector(8)
    actor, right = UnwipedActor(subject.policy, 8), 0.0
    for t, step in enumerate(play(vector, actor, seed=0)):
        right += 0 if step.success is None else float(step.success.sum())
        if t == 6 * (LENGTH + 1):
            break
    assert right < 6 * 8  # old cues are added to the new one


def emptied(rows: Tensor, x: Tensor) -> Tensor:
    """`x` [B, ...] with nothing in these rows."""
    return torch.stack([torch.zeros_like(part) if empty else part for empty, part in zip(rows, x, strict=True)])


@torch.no_grad()
def test_only_the_rows_whose_time_has_come_are_wiped() -> None:
    """Wiped one step from each start: row 1 at the second step, row 0, which starts anew there, at the third."""
    policy = agent_of("min_lstm").policy
    actor, going_on = WipedActor(policy, 2, at=1), torch.zeros(2, dtype=torch.bool)
    first, second, third = itertools.islice(play(subject_of(policy).vector(2), actor, seed=0), 3)
    actor, state = WipedActor(policy, 2, at=1), policy.initial_state(2)
    for step, start, empty in (
        (first, [True, True], [True, True]),
        (second, [True, False], [True, True]),
        (third, [False, False], [True, False]),
    ):
        actor(replace(step, start=torch.tensor(start)))
        before = map_state(functools.partial(emptied, torch.tensor(empty)), state)
        state = policy.step(step.observation, before, going_on).state
        torch.testing.assert_close(tensors_of(actor.state), tensors_of(state))


@pytest.mark.parametrize("encoder", ["min_gru", "attention"])
@torch.no_grad()
def test_forgetting_is_one_step_from_nothing(encoder: str) -> None:
    policy = agent_of(encoder).policy
    torch.manual_seed(0)
    for parameter in policy.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    episode = played_by(subject_of(policy)).first(1)
    found = measure_forgetting(policy, episode)
    assert found.divergence.shape == (LENGTH + 1,)
    assert float(found.divergence[0]) == pytest.approx(0, abs=1e-6)  # before the first step there is nothing
    torch.testing.assert_close(found.kept[0], found.wiped[0])
    t = 4
    alone = {name: leaf[t, :1].expand(2, *leaf.shape[2:]) for name, leaf in episode.leaves.items()}
    empty = policy.step(alone, policy.initial_state(2), torch.zeros(2, dtype=torch.bool)).distribution
    want = empty.log_prob(episode.action[t].expand(2, -1)).exp()[0]
    torch.testing.assert_close(found.wiped[t], want)
    assert float(found.divergence[1:].min()) > 1e-6


def test_divergences_are_those_of_torch() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4)
    torch_kl = torch.distributions.kl_divergence
    want = torch_kl(torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)).sum(-1)
    torch.testing.assert_close(divergence(Categorical(a), Categorical(b)), want)
    mean, other = torch.randn(2, 5, 3)
    deviation = torch.tensor([0.1, -0.5, 0.7])
    pair = [torch.distributions.Normal(x, deviation.exp()) for x in (mean, other)]
    found = divergence(Gaussian(mean, deviation), Gaussian(other, deviation))
    torch.testing.assert_close(found, torch_kl(pair[0], pair[1]).sum(-1))
    with pytest.raises(TypeError, match="two of a kind"):
        divergence(Categorical(a), Gaussian(mean, deviation))


def test_half_lives_are_those_that_were_set() -> None:
    """Gates that ignore the input: in play as by their bias, and every single one."""
    for encoder in ("min_gru", "min_lstm"):
        policy = agent_of(encoder).policy
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if name.endswith("mixer.projection.weight"):
                    parameter.zero_()
        scales = time_scales(policy, played_by(subject_of(policy)))
        assert len(scales) == 2
        for one in scales:
            torch.testing.assert_close(one.played, one.bias, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(one.gate[[0, -1]], one.bias.sort().values[[0, -1]], rtol=1e-4, atol=1e-6)
            assert one.bias.shape == (WIDTH,) and float(one.bias[0]) == pytest.approx(1.0, rel=1e-4)  # gate 1/2
        assert share_beyond(scales[0].bias, 1.5) == 7 / 8
    assert time_scales(agent_of("gru").policy, played_by(subject_of(agent_of("gru").policy))) == ()


def test_sizes_are_measured_as_long_as_asked() -> None:
    subject = subject_of(agent_of("lstm").policy)
    long = norms(subject, steps=40, rows=ROWS, unwiped=False, length=9)
    assert long.size.shape == (10, 2, ROWS) and bool(long.size.isfinite().all())
    old = norms(subject, steps=20, rows=ROWS, unwiped=True)
    assert old.size.shape == (20, 2, ROWS) and float(old.size.min()) > 0
    assert sorted({age for age, _ in old.episodes}) == [0, 6, 12]
    groups = by_age(old.episodes, bins=2)
    assert sum(len(episodes) for _, episodes in groups) == len(old.episodes) == 9
    assert groups[0][0] < groups[1][0]


def test_the_delay_of_native_environments_is_known() -> None:
    subject = subject_of(agent_of().policy)
    assert knob(subject) == ("length", [2, 5, 10, 20, 40, 80])
    assert knob(subject_of(subject.policy, "rlmin/RepeatPreviousEasy-v0", k=4)) == ("decks", [1, 2, 4, 8, 16])
    assert knob(subject_of(subject.policy, "rlmin/DelayedMatch10-v0", symbols=2)) == ("delay", [5, 10, 20, 40, 80, 160])
    assert knob(subject_of(subject.policy, "CartPole-v1", render_mode=None)) is None
    found = play_varied(subject, "length", [3, 0], episodes=4)
    assert list(found.results) == [3] and found.results[3].lengths.tolist() == [4] * 4
    assert "at least one cell" in found.failed[0] and found.trained == LENGTH


def test_frames_lose_margins_and_size() -> None:
    frame = np.full((480, 640, 3), 255, np.uint8)
    frame[10:410, 20:420] = 7
    assert shrink(frame).shape == (320, 320, 3) and shrink(np.full((9, 8, 3), 255, np.uint8)).shape == (9, 8, 3)


class Page(HTMLParser):
    """Whether tags match, and what the page asks for."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.sources, self.heads = list[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.sources += [told[name] or "" for name in ("src", "href") if name in told]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self.open:
            self.heads.append(data)


def check_page(text: str) -> list[str]:
    """A whole page that needs no network; its heads."""
    page = Page(text)
    assert page.open == [] and page.sources
    for source in page.sources:
        kind, _, content = source.partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/png")
        picture = base64.b64decode(content)
        assert picture.startswith(b"\x89PNG") or b"</svg>" in picture
        assert not re.search(rb"<script|(href|src)=\"http", picture)
    assert "<script" not in text and "http" not in re.sub(r'src="[^"]*"', "", text) and "nan" not in text.split()
    return [head for head in page.heads if not head.isdigit()]


HEADS = 6


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(agent: Any, name: str = "run") -> Path:
        agent.save(tmp_path / name)
        return tmp_path / name

    return save


def test_a_run_becomes_a_page(saved: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = saved(agent_of(previous_action=True, previous_reward=True), "run <b>&")
    main(["inspect", str(folder), "--episodes", "6", "--vary", "length=3,0,12", "--shown", "1"])
    text = (folder / "inspection.html").read_text()
    assert len(check_page(text)) == HEADS
    assert "run &lt;b&gt;&amp;" in text and "<b>&" not in text
    assert "&lt;b&gt;&amp; --episodes 6 --vary length=3,0,12 --shown 1<" in text
    assert "length=0: " in text and "Success against length" in text and "half-life" in text
    said = capfd.readouterr().out.splitlines()
    assert said[-1] == str(folder / "inspection.html") and "vary length: 3, 0, 12" in "\n".join(said)
    assert any("not played: length=0: " in line for line in said)


@pytest.mark.parametrize("encoder", ["mlp", "gru", "attention"])
def test_what_does_not_apply_is_said(encoder: str) -> None:
    options = {"context": 4} if encoder == "attention" else {}
    policy = agent_of(encoder, layers=1, **options).policy
    found = study(subject_of(policy), episodes=4, vary=("length", [3]), shown=1)
    text = report(found, title="run", facts={}, command="rlmin inspect run")
    assert len(check_page(text)) == HEADS
    assert "no half-life of its own" in text and "not a sum of past steps" in text and "float64" not in text
    assert ("nothing to wipe" in text) == (encoder == "mlp")
    assert ("No past step has an effect" in text) == (encoder == "mlp")
    assert ("not a vector of units" in text) == (encoder != "gru")


class Points(gym.Env[Any, Any]):
    """Pictures and numbers, and an action that is a point; draws nothing."""

    observation_space = gym.spaces.Dict(
        {"picture": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8), "place": gym.spaces.Box(-9, 9, (), np.float32)}
    )
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def _seen(self) -> dict[str, Any]:
        return {"picture": self.observation_space["picture"].sample(), "place": np.array(self.t, dtype=np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._seen(), float(action[0]), False, self.t == 4, {}


class Glances(gym.Env[Any, Any]):
    """Episodes of one step, drawn."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 9}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.random(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.np_random.random(3, np.float32), 1.0, True, False, {}

    def render(self) -> Any:
        return np.full((7, 9, 3), 40, np.uint8)


def test_episodes_of_one_step_have_nothing_to_forget() -> None:
    if "Glances-v0" not in gym.registry:
        gym.register("Glances-v0", lambda **options: Glances(**options))
    policy = PPO("Glances-v0", width=WIDTH, num_envs=2, horizon=7).policy
    subject = Subject(policy=policy, arena=Arena(id="Glances-v0"), horizon=7)
    found = study(subject, episodes=4, vary=None, shown=1)
    assert found.scales == ()
    text = report(found, title="run", facts={"a": "b"}, command="rlmin inspect run")
    assert len(check_page(text)) == HEADS and "one step long" in text and "exactly weighted sum" in text
    assert text.count("data:image/png") == 1 and "costs" not in text
    assert "</svg>" in draw_wipes(replace(found, forgetting=found.forgetting * 7)), "more than there are colours"


def test_pictures_are_kept_of_fewer_rows() -> None:
    small, large = (gym.spaces.Box(0, 255, shape, np.uint8) for shape in ((5, 6, 3), (84, 84, 4)))
    rows = [affordable(space, 2000, 2) for space in (small, large)]
    assert rows[0] == (16, 2000) and rows[1] == (4, 2000)
    assert affordable(large, 2000, 9) == (9, (1 << 28) // (9 * 84 * 84 * 4))


def test_nothing_holds_and_nothing_is_lost_where_nothing_was_achieved() -> None:
    none, all_of = (Evaluation.of([Done(return_=x, length=6, success=bool(x))] * 40) for x in (0.0, 1.0))
    varied_to = {
        base: Varied(name="length", trained=LENGTH, results={LENGTH: one, 9: one}, failed={})
        for base, one in (("none", none), ("all", all_of))
    }
    study_of = study(subject_of(agent_of().policy), episodes=4, vary=("length", [LENGTH, 9]), shown=1)

    def told(kind: str, base: Evaluation, wiped: Evaluation, always: Evaluation) -> str:
        changed = replace(
            study_of, evaluation=base, varied=varied_to[kind], wipes={0: base, 3: wiped}, memoryless=always
        )
        return " ".join(list_findings(changed))

    nothing = told("none", none, none, none)
    assert "holds up to" not in nothing and "Wip" not in nothing
    much = told("all", all_of, none, none)
    assert "holds up to length=9" in much and "costs most at step 3: success 0 instead of 1" in much
    assert "no measurable cost" in told("all", all_of, all_of, none)


def test_points_pictures_and_environments_without_a_knob() -> None:
    if "Points-v0" not in gym.registry:
        gym.register("Points-v0", lambda **options: Points(**options))
    agent = PPO("Points-v0", width=WIDTH, num_envs=2, horizon=7, encoder="min_lstm", share_memory=False)
    subject = Subject(policy=agent.policy, arena=Arena(id="Points-v0"), horizon=7)
    found = study(subject, episodes=4, vary=None, shown=1)
    text = report(found, title="run", facts={"a": "b"}, command="rlmin inspect run")
    assert len(check_page(text)) == HEADS and "--vary NAME=V1,V2" in text and "log-density" in text
    assert found.explained[0].attribution.layers[0].error < 1e-12


def test_a_decision_agent_is_asked_for_the_best_of_its_data(saved: Callable[..., Path]) -> None:
    draw = np.random.default_rng(0)
    episodes = [
        Episode(
            observations=draw.normal(size=(n + 1, 4)).astype(np.float32),
            actions=draw.integers(2, size=n),
            rewards=np.ones(n),
            terminated=True,
        )
        for n in (9, 12, 10, 11)
    ]
    env = {"id": "CartPole-v1", "kwargs": {}, "workers": 0}
    agent = DecisionAgent(episodes, env=env, encoder="min_gru", width=WIDTH, rows=2, horizon=8, tokens="triple")
    folder = saved(agent)
    page = folder / "page.html"
    main(["inspect", str(folder), "--episodes", "4", "--shown", "1", "--file", str(page)])
    assert len(check_page(page.read_text())) == HEADS
    assert re.search(r"asked return</dt><dd>12<", page.read_text())
    asked = Inspect(what=str(folder), target_return=10.5)
    assert subject_of_run(asked, load_run(folder, device="cpu"), folder).target == 10.5


def test_bad_input_is_refused_and_nothing_is_written(
    saved: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = saved(agent_of())
    before = sorted(folder.iterdir())
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("")
    run = ["inspect", str(folder)]
    for arguments, message in (
        ([*run, "--vary", "length"], "expected NAME=V1,V2"),
        ([*run, "--vary", "length=[2"], "expected NAME=V1,V2"),
        ([*run, "--vary", "length=[[1,2]]"], "expected NAME=V1,V2"),
        ([*run, "--vary", "x={a: 1}"], "expected NAME=V1,V2"),
        (["inspect", "hf://user"], "expected hf://USER/NAME"),
        ([*run, "--vary", "width=3,4", "--episodes", "2"], "width=3: rlmin/TMaze-v0"),
        ([*run, "--episodes", "0"], "whole number of at least 1"),
        ([*run, "--target-return", "1"], "not return-conditioned"),
        ([*run, "--env", "CartPole-v1"], "observation space: the policy expects"),
        ([*run, "--env", "rlmin/TMase-v0"], "did you mean"),
        ([*run, "--file", str(tmp_path / "no" / "page.html")], "no such folder"),
        (["inspect", str(tmp_path / "half")], "incomplete run"),
        (["inspect", str(tmp_path / "data.hdf5"), "--vary", "length=3"], "--vary is for runs"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and message in capfd.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert is_run(str(folder)) and is_run("hf://user/name") and not is_run(str(tmp_path)) and not is_run("tmaze/mix-v0")


def test_values_to_vary_are_read_as_yaml() -> None:
    assert parse_vary("length=10, 50") == ("length", [10, 50]) and parse_vary(None) is None
    assert parse_vary("level=S9,null,[2, 5]") == ("level", ["S9", None, (2, 5)])
