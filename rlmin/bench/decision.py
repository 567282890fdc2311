"""Decision agents: evaluation and training speed, beside decision transformers.

All have three blocks of width 128, MLPs four times as wide (twice for "mlp 2", rlmin's default) and no dropout, for
observations of 11 numbers and actions of 3, as in Hopper. The decision transformers see K = 20 steps, as
three tokens each: d3rlpy's own, and the same in rlmin ("attention, triples": no convolution, one head).

"evaluation" is whole episodes of 200 steps: rlmin's by `evaluate_targets`, in one environment and in 64 at once;
d3rlpy's by its `evaluate_transformer_with_environment`, which plays one environment and reads the last K steps again
for every action. The environment is a product of two small matrices, so cheap that it hides nothing; with a more
expensive one all numbers come closer together. rlmin's attention keeps the keys and values of past steps.

"a step" is one `Policy.step` of one environment with the memory of an episode's 10th step and of its 10,000th.

"training" is drawing batches from episodes of 1000 steps and updating, in logged steps a second: 16 streams of 1000
steps for agents that carry a memory, 64 windows of K steps for the others.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlmin.agents.decision import DecisionAgent
from rlmin.bench.d3rlpy import make_replay_buffer, make_transformer
from rlmin.bench.drift import ACTION, OBSERVATION, A, D, Drift, OneDrift, draw_episodes
from rlmin.bench.options import Options
from rlmin.bench.peers import Missing, need
from rlmin.bench.report import Row, Table, Target, number
from rlmin.bench.timing import Case, Timing
from rlmin.data import Dataset, Episode, load_dataset
from rlmin.evaluation.targets import evaluate_targets
from rlmin.policy import Policy
from rlmin.types import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PEER, TRANSFORMER = "d3rlpy DecisionTransformer", "rlmin attention, triples"
K, MANY, WINDOWS = 20, 64, 64
RECURRENT: dict[str, dict[str, Any]] = {
    "rlmin min_gru": {"encoder": "min_gru"},
    "rlmin min_lstm": {"encoder": "min_lstm"},
    "rlmin min_gru, mlp 2": {"encoder": "min_gru", "mlp": 2},
    "rlmin min_lstm, mlp 2": {"encoder": "min_lstm", "mlp": 2},
}
ATTENTION: dict[str, dict[str, Any]] = {
    TRANSFORMER: {"encoder": "attention", "conv": 0, "heads": 1, "tokens": "triple", "context": 3 * K},
    "rlmin attention, one token": {"encoder": "attention", "conv": 0, "heads": 1, "context": K},
}
HELD = ("rlmin min_gru", "rlmin min_lstm")
"""Contenders that have targets."""
MEMORIES = ("min_gru", "min_lstm", "gru", "lstm", "aaren")
LEAST_EVALUATION, LEAST_TRAINING, MOST_GROWTH = 20.0, 3.0, 1.1


class Sizes(NamedTuple):
    """Sizes of everything."""

    width: int = 128
    layers: int = 3
    episodes: int = 40  # logged
    length: int = 1000  # of each of these
    rows: int = 16
    played: int = 200  # steps of an episode that is evaluated
    ages: tuple[int, int] = (10, 10_000)


QUICK = Sizes(width=8, layers=1, episodes=3, length=25, rows=2, played=7, ages=(2, 9))


class Contender(NamedTuple):
    """An agent that takes turns with the others."""

    name: str
    batch: str  # a call in words
    steps: int  # of environments, or logged, a call
    model: torch.nn.Module
    case: Case


def run(options: Options) -> Table:
    """Evaluation, a step's growth, training; see the top of this file."""
    table, sizes = Table(), QUICK if options.quick else Sizes()
    episodes = draw_episodes(sizes.episodes, sizes.length)
    data = load_dataset(episodes, observation_space=OBSERVATION, action_space=ACTION)
    own = list(_evaluating(data, sizes, options))
    _compare(table, "evaluation", own, lambda: _their_turn(sizes, options), options)
    for memory in MEMORIES:
        _age(table, memory, data, sizes, options)
    own = list(_training(data, sizes, options))
    _compare(table, "training", own, lambda: _their_update(episodes, sizes, options), options)
    _judge(table)
    return table


def _compare(table: Table, what: str, own: list[Contender], peer: Callable[[], Contender], options: Options) -> None:
    """A row for each contender, relative to d3rlpy's and, in training, to rlmin's decision transformer."""
    contenders = own
    try:
        contenders = [peer(), *own]
    except Missing as reason:
        table.skip(reason, {"what": what, "contender": PEER})
    timing = options.measure(what, {_key(one): one.case for one in contenders}, rounds=11, seconds=55, block=0.3)
    bases = {one.name: one for one in contenders}
    for one in contenders:
        table.add(
            {
                "what": what,
                "contender": one.name,
                "batch": one.batch,
                "parameters": _size(one.model),
                "steps/s": round(one.steps / timing.median(_key(one))),
                "x d3rlpy": _times(timing, one, bases.get(PEER)),
                "x attention": _times(timing, one, bases[TRANSFORMER]) if what == "training" else None,
                "rounds": timing.rounds,
            }
        )


def _key(one: Contender) -> str:
    return f"{one.name}, {one.batch}"


def _times(timing: Timing, one: Contender, base: Contender | None) -> float | None:
    """Steps a second in units of those of `base`; None if there is no `base`."""
    return None if base is None else timing.ratio(_key(base), _key(one)) * one.steps / base.steps


def _judge(table: Table) -> None:
    """Compare the results with the targets."""
    for name in HELD:
        for row in table.where(what="evaluation", contender=name, batch=environments(MANY)):
            if row["x d3rlpy"] is not None:
                what = f"evaluation, {name}, {row['batch']}, x d3rlpy"
                table.targets.append(Target(what, number(row["x d3rlpy"]), LEAST_EVALUATION, at_most=False))
        for row in table.where(what="training", contender=name):
            for base in ("x attention", "x d3rlpy"):
                if row[base] is not None:
                    what = f"training, {name}, {base}"
                    table.targets.append(Target(what, number(row[base]), LEAST_TRAINING, at_most=False))
        for row in table.where(what="a step", contender=name):
            what = f"a step, {name}, late over early"
            table.targets.append(Target(what, number(row["late / early"]), MOST_GROWTH))


def agent_of(data: Dataset, sizes: Sizes, options: Options, **settings: Any) -> DecisionAgent:
    """An agent of these sizes that has learned nothing yet."""
    shared: dict[str, Any] = {"width": sizes.width, "layers": sizes.layers, "mlp": 4, "rows": sizes.rows}
    return DecisionAgent(data, device=options.device, **(shared | {"horizon": sizes.length} | settings))


def _evaluating(data: Dataset, sizes: Sizes, options: Options) -> Iterator[Contender]:
    """rlmin's agents, evaluated in one environment and in many."""
    for name, settings in (RECURRENT | ATTENTION).items():
        agent = agent_of(data, sizes, options, **settings)
        for B in (1, MANY):
            yield Contender(name, environments(B), B * sizes.played, agent.policy, _turn(agent, B, sizes.played))


def environments(B: int) -> str:
    """A number of environments in words."""
    return f"{B} environment{'s' * (B > 1)}"


def _turn(agent: DecisionAgent, B: int, length: int) -> Case:
    """An episode in each of B environments."""
    sizes: dict[str, Any] = {"episodes": B, "num_envs": B, "return_scale": agent.config.return_scale}
    return lambda: evaluate_targets(agent.policy, lambda rows: Drift(rows, length), [1.0], **sizes)


def _their_turn(sizes: Sizes, options: Options) -> Contender:
    """An episode of d3rlpy's DecisionTransformer in one environment, as its `fit` evaluates."""
    theirs, env = _theirs(sizes, options), OneDrift(sizes.played)
    evaluate, actor = need("d3rlpy.metrics").evaluate_transformer_with_environment, theirs.as_stateful_wrapper(1.0)
    model = theirs.impl.modules.transformer
    return Contender(PEER, environments(1), sizes.played, model, lambda: evaluate(actor, env, n_trials=1))


def _training(data: Dataset, sizes: Sizes, options: Options) -> Iterator[Contender]:
    """rlmin's agents, and an update of a batch of each."""
    windows = {"windows": K, "rows": WINDOWS}
    for name, settings in (RECURRENT | {TRANSFORMER: ATTENTION[TRANSFORMER] | windows}).items():
        agent = agent_of(data, sizes, options, **settings)
        agent.policy.train()
        B, T = agent.config.rows, agent.config.steps
        yield Contender(name, f"{B} rows of {T}", B * T, agent.policy, _update(agent))


def _update(agent: DecisionAgent) -> Case:
    return lambda: agent.update(agent.feed.draw())


def _their_update(episodes: list[Episode], sizes: Sizes, options: Options) -> Contender:
    """An update of d3rlpy's DecisionTransformer, as its `fit` does it."""
    theirs, buffer = _theirs(sizes, options), make_replay_buffer(episodes)
    model = theirs.impl.modules.transformer

    def update() -> None:
        theirs.update(buffer.sample_trajectory_batch(WINDOWS, length=K))

    return Contender(PEER, f"{WINDOWS} rows of {K}", WINDOWS * K, model, update)


def _theirs(sizes: Sizes, options: Options) -> Any:
    return make_transformer(
        D, A, width=sizes.width, layers=sizes.layers, context=K, length=sizes.length, device=options.device
    )


def _size(module: torch.nn.Module) -> int:
    return sum(x.numel() for x in module.parameters())


def _age(table: Table, memory: str, data: Dataset, sizes: Sizes, options: Options) -> None:
    """A row with the cost of a step early and late in an episode."""
    policy = agent_of(data, sizes, options, encoder=memory).policy
    names = [f"step {age}" for age in sizes.ages]
    cases = {name: at_age(policy, age, options.device) for name, age in zip(names, sizes.ages, strict=True)}
    timing = options.measure(f"a step, {memory}", cases, rounds=51, seconds=3)
    early, late = names
    row: Row = {"what": "a step", "contender": f"rlmin {memory}", "batch": "1 environment", "parameters": _size(policy)}
    row |= {"us, early": 1e6 * timing.median(early), "us, late": 1e6 * timing.median(late)}
    table.add(row | {"late / early": timing.ratio(late, early), "rounds": timing.rounds})


def at_age(policy: Policy, age: int, device: str) -> Case:
    """A step of one environment whose episode is `age` steps old, the same every time."""
    generator = torch.Generator().manual_seed(0)
    seen = [{"observation": torch.randn(1, D, generator=generator).to(device)} for _ in range(64)]
    extra = {"return_to_go": torch.ones(1, 1, device=device)}
    action, reward = policy.no_action(1), torch.zeros(1, device=device)

    @torch.no_grad()
    def step(state: State, t: int) -> State:
        start = torch.tensor([t == 0], device=device)
        observation = policy.with_previous({**seen[t % len(seen)], **extra}, action, reward)
        return policy.step(observation, state, start).state

    state = policy.initial_state(1)
    for t in range(age):
        state = step(state, t)
    return lambda: step(state, age)


def draw(table: Table, figure: "Figure") -> None:
    """Steps a second of evaluation and of training, and microseconds of a step early and late in an episode."""
    figure.set_size_inches(9, 8.5)
    top, middle, bottom = figure.subplots(3, 1, gridspec_kw={"height_ratios": [13, 6, 6]})
    for axes, what in ((top, "evaluation"), (middle, "training")):
        rows = table.where(what=what)[::-1]
        names = [f"{row['contender']}, {row['batch']}" for row in rows]
        bars = axes.barh(names, table.numbers("steps/s", what=what)[::-1], color=[_colour(row) for row in rows])
        axes.bar_label(bars, [_label(row) for row in rows], padding=3, fontsize=7)
        axes.margins(x=0.2)
        axes.set_title(f"{what}, steps a second (x d3rlpy's)", fontsize=9)
    top.set_xscale("log")
    rows = table.where(what="a step")
    for i, column in enumerate(("us, early", "us, late")):
        places = [j + 0.4 * (i - 0.5) for j in range(len(rows))]
        bottom.bar(places, table.numbers(column, what="a step"), 0.4, label=column)
    bottom.set_xticks(range(len(rows)), [str(row["contender"]) for row in rows])
    bottom.set_title("a step of one environment, early and late in an episode", fontsize=9)
    bottom.legend(fontsize=7)
    for axes in (top, middle, bottom):
        axes.tick_params(labelsize=7)


def _label(row: Row) -> str:
    """Steps a second, and in units of d3rlpy's."""
    times = row["x d3rlpy"]
    return f"{number(row['steps/s']):,.0f}" + ("" if times is None else f" (x {number(times):.3g})")


def _colour(row: Row) -> str:
    return "C0" if row["contender"] in RECURRENT else "0.4" if row["contender"] == PEER else "0.7"
