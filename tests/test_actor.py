"""Acting in a loop of one's own: the memory is kept, and episodes start where the environment says.

What an actor earns is what `rlmin.evaluation.evaluate` and a loop with the state in the caller's hands earn on the same
seeds; one that is not told where episodes start earns something else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, RecordVideo, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics

from rlmin import DecisionAgent, make_vec
from rlmin.data import Episode, load_dataset
from rlmin.envs import register
from rlmin.evaluation.evaluate import evaluate
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.actor import Actor, EnvActor, make_actor
from rlmin.policy.predict import PolicyState, predict
from rlmin.types import tensors_of
from rlmin.vector import adapt
from rlmin.wrappers import ReturnToGo
from rlmin.wrappers.vector import ReturnToGo as VectorReturnToGo

register()

B, D, A, H = 3, 4, 5, 6
SEED, EACH = 7, 8  # of the environments; episodes of each
MODES = list(AutoresetMode)


class Game(gym.Env[np.ndarray, np.int64]):
    """Episodes of 2 to 8 steps; an action earns what the observation says, and some actions are illegal."""

    observation_space = spaces.Box(-3, 3, (D,))
    action_space = spaces.Discrete(A, start=2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 9))
        return self._next()

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.mask[action - 2], "an illegal action"
        reward = float(self.seen[(action - 2) % D])
        self.left -= 1
        observation, info = self._next()
        return observation, reward, self.left == 0, False, info

    def _next(self) -> tuple[np.ndarray, dict[str, Any]]:
        self.seen = self.np_random.normal(size=D).clip(-3, 3).astype(np.float32)
        self.mask = self.np_random.random(A) < 0.6
        self.mask[self.np_random.integers(A)] = True
        return self.seen, {"action_mask": self.mask}


def games(mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([Game] * B, autoreset_mode=mode)


def random_policy(observation: gym.Space[Any] = Game.observation_space, **settings: Any) -> Policy:
    """Random weights everywhere, so that memory, previous action and reward, and target all have a say."""
    policy = Policy(observation, Game.action_space, PolicyConfig(width=H, **settings))
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():
        parameter.data.normal_(std=0.7, generator=generator)
    return policy.eval()


def conditioned() -> Policy:
    to_go = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    space = spaces.Dict([("observation", Game.observation_space), ("return_to_go", to_go)])
    return random_policy(space, previous_action=True)


Step = Callable[[], tuple[Any, Any, Any, Any, Any]]


def returns_of(step: Step, reset_rows: Callable[[Any], None], mode: AutoresetMode) -> list[float]:
    """Returns of the first episodes of every row, row after row: by the rules of the mode, written down once more."""
    totals, episodes, over = np.zeros(B), [list[float]() for _ in range(B)], np.zeros(B, dtype=bool)
    while min(len(row) for row in episodes) < EACH:
        _, reward, terminated, truncated, _ = step()
        opened = over if mode is AutoresetMode.NEXT_STEP else np.zeros(B, dtype=bool)
        totals += np.where(opened, 0, reward)
        over = (terminated | truncated) & ~opened
        for row in over.nonzero()[0]:
            episodes[row].append(totals[row])
            totals[row] = 0
        if mode is AutoresetMode.DISABLED and over.any():
            reset_rows(over)
    return [total for row in episodes for total in row[:EACH]]


def bound(act: EnvActor) -> list[float]:
    assert act.mode is not None
    act.reset(seed=SEED)
    return returns_of(act.step, lambda rows: act.reset(options={"reset_mask": rows}) and None, act.mode)


def deaf(act: EnvActor) -> EnvActor:
    """An actor that is told of no start after the first."""
    act.actor.reset = lambda rows=None: None  # type: ignore[method-assign]
    return act


# -- the same as rlmin.evaluation.evaluate -----------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_bound_to_a_vector_environment_it_earns_what_an_evaluation_does(
    mode: AutoresetMode, deterministic: bool
) -> None:
    policy = random_policy(previous_action=True, previous_reward=True)
    settings: dict[str, Any] = {"deterministic": deterministic, "seed": SEED}
    expected = evaluate(policy, adapt(games(mode)), episodes=B * EACH, **settings).returns.tolist()
    assert bound(make_actor(policy, games(mode), **settings)) == expected
    assert bound(deaf(make_actor(policy, games(mode), **settings))) != expected


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_target_is_counted_down_as_by_the_wrapper(mode: AutoresetMode) -> None:
    policy, targets = conditioned(), [1.0, 3.0, 9.0]
    wrapped = VectorReturnToGo(games(mode), targets, scale=2.0)
    expected = evaluate(policy, adapt(wrapped), episodes=B * EACH, seed=SEED).returns.tolist()
    assert bound(make_actor(policy, games(mode), target_return=targets, return_scale=2.0)) == expected
    assert bound(make_actor(policy, wrapped)) == expected, "or the environment brings it"
    assert bound(make_actor(policy, games(mode), target_return=5.0, return_scale=2.0)) != expected
    assert bound(deaf(make_actor(policy, games(mode), target_return=targets, return_scale=2.0))) != expected


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_without_an_environment_it_is_told_of_starts(mode: AutoresetMode) -> None:
    policy = random_policy(previous_reward=True)
    expected = evaluate(policy, adapt(games(mode)), episodes=B * EACH, seed=SEED).returns.tolist()

    def played(*, forget: bool) -> list[float]:
        env, act = games(mode), make_actor(policy)
        seen: dict[str, Any] = {}
        observation, info = env.reset(seed=SEED)
        seen |= {"observation": observation, "mask": info["action_mask"], "reward": None, "over": np.zeros(B, bool)}

        def step() -> tuple[Any, Any, Any, Any, Any]:
            start = None if seen.get("start") is None or not forget else seen["start"]
            chosen = act(seen["observation"], reward=seen["reward"], start=start, action_mask=seen["mask"])
            outcome = env.step(chosen)
            mask = np.where(outcome[4]["_action_mask"][:, None], outcome[4]["action_mask"], True)
            over = outcome[2] | outcome[3]
            start = {AutoresetMode.SAME_STEP: over, AutoresetMode.NEXT_STEP: seen["over"]}.get(mode, np.zeros(B, bool))
            seen.update(observation=outcome[0], reward=outcome[1], mask=mask, start=start, over=over & ~seen["over"])
            return outcome

        def reset_rows(rows: Any) -> None:
            observation, info = env.reset(options={"reset_mask": rows.copy()})
            mask = np.where(rows[:, None], info["action_mask"], seen["mask"])
            seen.update(observation=observation, mask=mask)
            if forget:
                act.reset(rows)

        return returns_of(step, reset_rows, mode)

    assert played(forget=True) == expected
    assert played(forget=False) != expected


# -- one environment --------------------------------------------------------------------------------------------------


def by_hand(policy: Policy, episodes: int) -> list[tuple[float, int]]:
    """Return and length of episodes, with the state in the caller's hands."""
    env, played = Game(), []
    for episode in range(episodes):
        observation, info = env.reset(seed=SEED if episode == 0 else None)
        state: PolicyState | None = None
        total, length, over, reward = 0.0, 0, False, 0.0
        while not over:
            rest: dict[str, Any] = {"reward": reward, "action_mask": info["action_mask"]}
            action, state = predict(policy, observation, state, deterministic=True, **rest)
            observation, reward, terminated, truncated, info = env.step(action)  # type: ignore[arg-type]
            total, length, over = total + reward, length + 1, terminated or truncated
        played.append((total, length))
    return played


def test_in_a_loop_over_one_environment_it_does_what_a_loop_with_explicit_state_does() -> None:
    policy = random_policy(previous_action=True, previous_reward=True)
    expected = by_hand(policy, 5)

    def unbound(*, forget: bool) -> list[tuple[float, int]]:
        env, act, played = Game(), make_actor(policy), []
        for episode in range(5):
            observation, info = env.reset(seed=SEED if episode == 0 else None)
            if forget:
                act.reset()
            total, length, over, reward = 0.0, 0, False, 0.0
            while not over:
                action = act(observation, reward=reward, action_mask=info["action_mask"])
                assert np.ndim(action) == 0
                observation, reward, terminated, truncated, info = env.step(action)  # type: ignore[arg-type]
                total, length, over = total + reward, length + 1, terminated or truncated
            played.append((total, length))
        return played

    assert unbound(forget=True) == expected
    assert unbound(forget=False) != expected

    act, played = make_actor(policy, Game()), []
    for episode in range(5):
        act.reset(seed=SEED if episode == 0 else None)
        total, length, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, _ = act.step()
            total, length, over = total + reward, length + 1, terminated or truncated
        played.append((total, length))
    assert played == expected


def test_start_may_be_said_in_the_call_instead_of_reset() -> None:
    policy = random_policy()
    observations = np.random.default_rng(1).normal(size=(6, D)).astype(np.float32).clip(-3, 3)
    told, reset, silent = make_actor(policy), make_actor(policy), make_actor(policy)
    for t, observation in enumerate(observations):
        if t == 4:
            reset.reset()
        told(observation, start=t == 4)
        reset(observation)
        silent(observation)
    assert told.state is not None and reset.state is not None and silent.state is not None
    for a, b in zip(tensors_of(told.state[0]), tensors_of(reset.state[0]), strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(tensors_of(told.state[0])[-1], tensors_of(silent.state[0])[-1])


@pytest.mark.needs("moviepy")
def test_gymnasiums_recorders_and_time_limits_go_around_the_environment(tmp_path: Path) -> None:
    made = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=9)
    policy = Policy(made.observation_space, made.action_space, PolicyConfig(width=H))
    env = RecordVideo(RecordEpisodeStatistics(TimeLimit(made, 6)), str(tmp_path / "films"), lambda episode: True)
    act = make_actor(policy, env)
    lengths = []
    for _ in range(2):
        act.reset()
        over = False
        while not over:
            _, _, terminated, truncated, info = act.step()
            over = terminated or truncated
        lengths.append(info["episode"]["l"])
    env.close()  # type: ignore[no-untyped-call]
    assert lengths == [6, 6]
    assert {file.name for file in (tmp_path / "films").iterdir()} == {f"rl-video-episode-{i}.mp4" for i in range(2)}


@pytest.mark.parametrize("mode", MODES[:2], ids=lambda mode: mode.name)  # in DISABLED 1.4 forgets all rows at once
def test_gymnasiums_vector_statistics_count_the_same_episodes(mode: AutoresetMode) -> None:
    policy = random_policy()
    expected = evaluate(policy, adapt(games(mode)), episodes=B * EACH, seed=SEED).returns
    env = VectorRecordEpisodeStatistics(games(mode))
    assert bound(make_actor(policy, env)) == expected.tolist()
    assert {np.float32(x) for x in env.return_queue} >= {np.float32(x) for x in expected}


def test_in_a_native_environment_tensors_stay_tensors() -> None:
    env = make_vec("rlmin/TMaze-v0", B, length=4)
    policy = Policy(env.single_observation_space, env.single_action_space, PolicyConfig(width=H, previous_reward=True))
    expected = evaluate(policy, adapt(make_vec("rlmin/TMaze-v0", B, length=4)), episodes=B * EACH, seed=SEED)
    act = make_actor(policy, env)
    act.reset(seed=SEED)
    totals = torch.zeros(B, dtype=torch.float64)
    for _ in range(int(expected.lengths.reshape(B, EACH).sum(1).max())):
        _, reward, *_ = act.step()
        totals += reward
    assert isinstance(act.action, torch.Tensor)
    assert (expected.lengths == expected.lengths[0]).all(), "so that the steps counted are the same"
    assert totals.tolist() == pytest.approx(expected.returns.reshape(B, EACH).sum(1).tolist())


# -- decision agents --------------------------------------------------------------------------------------------------


def test_a_decision_agent_aims_for_the_best_of_its_data_or_for_what_it_is_told() -> None:
    generator, episodes = np.random.default_rng(0), []
    for length in range(2, 9):
        seen = generator.normal(size=(length + 1, D)).clip(-3, 3).astype(np.float32)
        actions = generator.integers(2, 2 + A, size=length)
        episodes.append(Episode(seen, actions, seen[np.arange(length), (actions - 2) % D], True))
    spaces_of: dict[str, Any] = {"observation_space": Game.observation_space, "action_space": Game.action_space}
    agent = DecisionAgent(load_dataset(episodes, **spaces_of), width=H, return_scale=2.0)
    agent.policy.load_state_dict(conditioned().state_dict(), strict=False)  # all but the normalisers
    best, mode = max(agent.run["data"]["returns"]), AutoresetMode.SAME_STEP

    def earned(target: float) -> list[float]:
        wrapped = VectorReturnToGo(games(mode), target, scale=2.0)
        returns: list[float] = evaluate(agent.policy, adapt(wrapped), episodes=B * EACH, seed=SEED).returns.tolist()
        return returns

    assert bound(agent.actor(games(mode))) == earned(best) != earned(best - 6)
    assert bound(agent.actor(games(mode), target_return=best - 6)) == earned(best - 6)
    assert bound(agent.actor(VectorReturnToGo(games(mode), best - 6, scale=2.0))) == earned(best - 6)
    with pytest.raises(ValueError, match="the observation has an entry 'return_to_go' already"):
        agent.actor(VectorReturnToGo(games(mode), best - 6, scale=2.0), target_return=best)

    def memory(act: Actor, **brought: Any) -> torch.Tensor:
        act({"observation": np.full((B, D), 0.3, np.float32), **brought})
        assert act.state is not None
        return tensors_of(act.state[0])[-1]

    own = {"return_to_go": np.full((B, 1), (best - 6) / 2.0, np.float32)}
    told = memory(agent.actor(target_return=best - 6))
    assert torch.equal(memory(agent.actor(), **own), told), "what is brought goes before the default"
    assert torch.equal(memory(agent.actor()), memory(agent.actor(target_return=best)))
    assert not torch.allclose(memory(agent.actor()), told)
    with pytest.raises(ValueError, match=r"has a 'return_to_go' of its own; leave target_return out"):
        memory(agent.actor(target_return=best), **own)


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said() -> None:
    plain, aiming = random_policy(), conditioned()
    with pytest.raises(ValueError, match=r"target_return=3\.0: this policy is not return-conditioned"):
        make_actor(plain, target_return=3.0)
    with pytest.raises(ValueError, match=r"return-conditioned: give it a target, actor\(target_return=\.\.\.\)"):
        make_actor(aiming)(np.zeros(D, np.float32))
    with pytest.raises(ValueError, match="return-conditioned: give it a target"):
        make_actor(aiming, Game())
    with pytest.raises(ValueError, match="observation space: the policy expects"):
        make_actor(plain, gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="the observation has an entry 'return_to_go' already"):
        make_actor(aiming, ReturnToGo(Game(), 3.0), target_return=3.0)
    with pytest.raises(ValueError, match=r"has a 'return_to_go' of its own; leave target_return out"):
        make_actor(aiming, target_return=3.0)({"observation": np.zeros(D, np.float32), "return_to_go": np.zeros(1)})
    act = make_actor(aiming, target_return=3.0)
    act(np.zeros((B, D), np.float32))
    with pytest.raises(ValueError, match="a target is counted down by the rewards; pass reward="):
        act(np.zeros((B, D), np.float32))
    with pytest.raises(ValueError, match=r"reward: expected \[3\], got \[2\]"):
        act(np.zeros((B, D), np.float32), reward=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"target_return: expected one, or \[3\], got \[2\]"):
        make_actor(aiming, target_return=[1.0, 2.0])(np.zeros((B, D), np.float32))
    with pytest.raises(ValueError, match="action space: the policy expects"):
        make_actor(plain, gym.wrappers.TransformAction(Game(), lambda action: action, spaces.Discrete(3)))
    with pytest.raises(TypeError, match=r"expected a gymnasium Env or VectorEnv, got builtins\.int"):
        make_actor(plain, 3)


def test_starts_are_flags_one_a_row() -> None:
    act, seen = make_actor(random_policy()), np.zeros((B, D), np.float32)
    for start in ([True, False], np.ones((B, 1), bool)):
        with pytest.raises(ValueError, match=r"start: expected one flag, or \[3\] as in the observation, got"):
            act(seen, start=start)
        assert act.state is None
    with pytest.raises(ValueError, match=r"start: expected flags, bool \[B\], got int64 \[0, 1, 0\]"):
        act(seen, start=[0, 1, 0])
    act(seen, start=torch.ones(B, dtype=torch.bool))
    before = act.state
    with pytest.raises(ValueError, match=r"rows: expected flags, bool \[B\], got int64 \[0, 1, 2\]"):
        act.reset([0, 1, 2])
    with pytest.raises(ValueError, match=r"rows: expected one flag, or \[3\] as in the observation, got \[2\]"):
        act.reset([True, False])
    with pytest.raises(ValueError, match=r"start: expected one flag, or \[3\] as in the observation, got \[2\]"):
        act(seen, start=[True, False])
    assert act.state is before
    act.reset([True, False, True])
    act(seen, start=[False, True, False])
    fresh = make_actor(random_policy())
    fresh(seen)
    assert act.state is not None and fresh.state is not None
    assert torch.equal(tensors_of(act.state[0])[-1], tensors_of(fresh.state[0])[-1])


def test_an_episode_that_is_over_is_not_gone_on_with() -> None:
    act = make_actor(random_policy(), Game())
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        act.step()
    act.reset(seed=0)
    while not any(act.step()[2:4]):
        pass
    with pytest.raises(RuntimeError, match=r"the episode is over: call reset\(\)"):
        act.step()


def test_bad_input_leaves_the_memory_as_it_was() -> None:
    act: Actor = make_actor(random_policy())
    act(np.zeros((B, D), np.float32))
    before = act.state
    with pytest.raises(FloatingPointError, match="NaN"):
        act(np.full((B, D), np.nan, np.float32), start=np.ones(B, bool))
    with pytest.raises(ValueError, match="state: expected 2 rows"):
        act(np.zeros((2, D), np.float32))
    assert act.state is before
    act.reset()
    assert act(np.zeros((2, D), np.float32)).shape == (2,), "after reset() the number of rows may change"


def test_the_old_name_makes_the_same_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"now rlmin\.policy\.actor\.make_actor"):
        assert isinstance(random_policy().actor(Game()), EnvActor)
