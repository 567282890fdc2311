"""Acting from outside: stable-baselines3's signature, memory in the caller's hands.

One step of one environment or of many; over a sequence it does what `Policy.unroll` does in one pass, and
stable-baselines3's own evaluation runs it.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlmin.agents.ppo import PPO
from rlmin.policy import Policy, PolicyConfig
from rlmin.policy.heads import Categorical
from rlmin.policy.inputs import PREVIOUS_ACTION, PREVIOUS_REWARD
from rlmin.policy.predict import PolicyState, predict
from rlmin.types import Observation, State

T, B, D, H = 7, 3, 4, 6
BOX = spaces.Box(-1, 1, (D,))


def make(observation: gym.Space[Any] = BOX, action: gym.Space[Any] | None = None, **settings: Any) -> Policy:
    """A policy with random weights everywhere, so that memory, previous action and reward all have a say."""
    policy = Policy(observation, spaces.Discrete(5) if action is None else action, PolicyConfig(width=H, **settings))
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():
        parameter.data.normal_(std=0.7, generator=generator)
    return policy


def seen(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (T, B, D)).astype(np.float32)


def leaves(state: State) -> list[torch.Tensor]:
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, tuple) else [state]


# -- under stable-baselines3 ------------------------------------------------------------------------------------------


def returns_by_hand(
    agent: PPO, env: gym.Env[Any, Any], seed: int, episodes: int, *, forget: bool = False
) -> list[float]:
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        state, total, over, first = agent.policy.initial_state(1), 0.0, False, True
        while not over:
            x = {"observation": torch.as_tensor(observation)[None]}
            with torch.no_grad():
                out = agent.policy.step(x, state, torch.tensor([first or forget]))
            observation, reward, terminated, truncated, _ = env.step(int(out.distribution.mode()))
            state, total, over, first = out.state, total + float(reward), terminated or truncated, False
        returns.append(total)
    return returns


def test_stable_baselines3_evaluates_it_in_a_vec_env_and_in_a_single_env() -> None:
    agent = PPO("CartPole-v1", width=8, num_envs=2, horizon=4, seed=0)
    generator = torch.Generator().manual_seed(8)
    for parameter in agent.policy.parameters():
        parameter.data.normal_(std=0.7, generator=generator)

    def env() -> Monitor[Any, Any]:
        return Monitor(gym.make("CartPole-v1"))

    vec = DummyVecEnv([env, env])
    vec.seed(3)  # the second environment's is 4
    several: Any = evaluate_policy(agent, vec, n_eval_episodes=4, return_episode_rewards=True)  # type: ignore[arg-type]
    expected = [returns_by_hand(agent, gym.make("CartPole-v1"), seed, 2) for seed in (3, 4)]
    assert sorted(several[0]) == sorted(expected[0] + expected[1])
    forgetful = [returns_by_hand(agent, gym.make("CartPole-v1"), seed, 2, forget=True) for seed in (3, 4)]
    assert sorted(forgetful[0] + forgetful[1]) != sorted(several[0])

    single = env()
    single.reset(seed=3)
    alone: Any = evaluate_policy(agent, single, n_eval_episodes=3, return_episode_rewards=True)  # type: ignore[arg-type]
    assert len(alone[0]) == 3 and alone[1] == [int(total) for total in alone[0]]


# -- the same numbers as one pass -------------------------------------------------------------------------------------


def test_step_by_step_it_does_what_one_pass_does() -> None:
    policy = make(previous_action=True, previous_reward=True)
    x, reward = seen(1), np.random.default_rng(2).normal(size=(T, B)).astype(np.float32)
    start = np.zeros((T, B), dtype=bool)
    start[0], start[4, 1], start[6, 2] = True, True, True
    state: PolicyState | None = None
    taken: list[torch.Tensor] = []
    for t in range(T):
        action, state = predict(policy, x[t], state, start[t], deterministic=True, reward=reward[t])
        taken.append(torch.as_tensor(action))
    none = policy.no_action(B)
    previous = torch.stack([none, *(action.unsqueeze(-1) for action in taken[:-1])])
    observation: Observation = {
        "observation": torch.as_tensor(x),
        PREVIOUS_ACTION: previous,
        PREVIOUS_REWARD: torch.as_tensor(reward),
    }
    out = policy.unroll(observation, policy.initial_state(B), torch.as_tensor(start))
    assert torch.equal(out.distribution.mode().squeeze(-1), torch.stack(taken))
    assert state is not None
    torch.testing.assert_close(leaves(state[0]), leaves(out.state), rtol=0, atol=1e-5)
    late = policy.unroll(observation, policy.initial_state(B), torch.as_tensor(start).roll(1, 0))
    assert not torch.equal(late.distribution.mode().squeeze(-1), torch.stack(taken))


def test_the_start_of_an_episode_wipes_memory_and_previous_action() -> None:
    policy, x = make(previous_action=True), seen(1)
    state: PolicyState | None = None
    for t in range(3):
        _, state = predict(policy, x[t], state, deterministic=True)
    assert state is not None
    other: PolicyState = (state[0], (state[1] + 1) % 5)
    born = predict(policy, x[3], None, deterministic=True)[1]
    for before in (state, other):
        _, wiped = predict(policy, x[3], before, np.array([True, True, False]), deterministic=True)
        for a, b in zip(leaves(wiped[0]), leaves(born[0]), strict=True):
            torch.testing.assert_close(a[:2], b[:2])
            assert not torch.allclose(a[2], b[2])
    going_on = [predict(policy, x[3], before, np.zeros(B, dtype=bool))[1][0] for before in (state, other)]
    assert not torch.allclose(leaves(going_on[0])[0], leaves(going_on[1])[0])  # there the previous action matters


def test_without_episode_start_only_the_first_call_begins_an_episode() -> None:
    policy, x = make(), seen(1)
    _, first = predict(policy, x[0])
    said = predict(policy, x[1], first, np.zeros(B, dtype=bool))[1]
    unsaid = predict(policy, x[1], first)[1]
    torch.testing.assert_close(leaves(unsaid[0]), leaves(said[0]), rtol=0, atol=0)
    assert not torch.allclose(leaves(unsaid[0])[0], leaves(predict(policy, x[1], first, np.ones(B, bool))[1][0])[0])


def test_a_policy_that_reads_the_previous_reward_asks_for_it() -> None:
    policy, x = make(previous_reward=True), seen(1)
    _, state = predict(policy, x[0])
    with pytest.raises(ValueError, match="reads the previous reward; pass reward="):
        predict(policy, x[1], state)
    low = predict(policy, x[1], state, reward=[0.0, 1.0, 2.0])[1]
    high = predict(policy, x[1], state, reward=torch.tensor([0.0, 1.0, 9.0]))[1]
    for a, b in zip(leaves(low[0]), leaves(high[0]), strict=True):
        assert torch.equal(a[:2], b[:2])
    assert not torch.equal(leaves(low[0])[0][2], leaves(high[0])[0][2])
    predict(policy, x[1], state, np.ones(B, dtype=bool))  # at a start there is none


# -- one observation or many ------------------------------------------------------------------------------------------

OBSERVATIONS: dict[str, gym.Space[Any]] = {
    "vector": BOX,
    "number": spaces.Box(-1, 1, ()),
    "picture": spaces.Box(0, 255, (20, 24, 3), np.uint8),
    "symbols": spaces.Box(0, 255, (5, 4, 2), np.uint8),
    "discrete from 3": spaces.Discrete(5, start=3),
    "multi-discrete": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    "multi-binary": spaces.MultiBinary(4),
    "dict with text": spaces.Dict(
        mission=spaces.Text(5), image=spaces.Box(0, 9, (3, 3, 2), np.uint8), n=spaces.Discrete(4)
    ),
    "nested": spaces.Dict(a=spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]), b=spaces.MultiBinary(2)),
}


def row(batch: Any, i: int) -> Any:
    if isinstance(batch, dict):
        return {key: row(part, i) for key, part in batch.items()}
    if isinstance(batch, tuple) and not isinstance(batch[0], str):
        return tuple(row(part, i) for part in batch)
    return batch[i]


def as_lists(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: as_lists(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(as_lists(part) for part in observation)
    return observation.tolist() if isinstance(observation, np.ndarray | np.generic) else observation


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_single_observation_is_answered_as_in_a_batch(name: str) -> None:
    space = OBSERVATIONS[name]
    policy = make(space)
    batched = batch_space(space, B)
    batched.seed(1)
    states: list[PolicyState | None] = [None] * B
    together: PolicyState | None = None
    rows = []
    for _ in range(3):
        batch = batched.sample()
        actions, together = predict(policy, batch, together, deterministic=True)
        assert actions.shape == (B,)
        rows.append(actions.tolist())
        for i in range(B):
            alone, after = predict(policy, row(batch, i), states[i], deterministic=True)
            listed, _ = predict(policy, as_lists(row(batch, i)), states[i], deterministic=True)
            assert alone.shape == () and alone == listed == actions[i]
            torch.testing.assert_close([x[0] for x in leaves(after[0])], [x[i] for x in leaves(together[0])])
            states[i] = after


def test_a_discrete_action_of_a_single_environment_can_index_a_dict() -> None:
    action, _ = predict(make(), seen(1)[0, 0])
    assert {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}[action]  # type: ignore[index]


ACTIONS: dict[str, gym.Space[Any]] = {
    "discrete from 3": spaces.Discrete(4, start=3),
    "discrete of int32": spaces.Discrete(4, dtype=np.int32),
    "multi-discrete": spaces.MultiDiscrete([2, 5]),
    "multi-discrete grid of int8": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int8),
    "multi-binary": spaces.MultiBinary([2, 3]),
    "box": spaces.Box(np.array([-1, 0], np.float32), np.array([3, 0.1], np.float32)),
    "box of float64": spaces.Box(-0.1, 0.1, (2, 2), np.float64),
    "box without axes": spaces.Box(-0.5, 0.5, ()),
    "half-bounded box": spaces.Box(np.array([-np.inf, 0], np.float32), np.array([1, np.inf], np.float32)),
}


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("double", [False, True])
def test_actions_lie_in_the_action_space_of_the_environment(name: str, double: bool) -> None:
    space = ACTIONS[name]
    policy = make(action=space, previous_action=True)
    policy = policy.double() if double else policy
    state: PolicyState | None = None
    single: PolicyState | None = None
    x = seen(1)
    for t in range(T):
        actions, state = predict(policy, x[t], state, generator=torch.Generator().manual_seed(t))
        assert actions.shape == (B, *(space.shape or ())) and actions.dtype == space.dtype
        assert all(space.contains(np.asarray(action)) for action in actions)
        action, single = predict(policy, x[t, 0], single, deterministic=t % 2 == 0)
        assert space.contains(action)


def test_dicts_of_tensors_and_attached_masks_are_read() -> None:
    """A mask may lie in the observation, as PettingZoo and gymnasium's vector environments hand it out."""
    space = spaces.Dict(x=BOX)
    policy = make(space)
    x = torch.as_tensor(seen(1)[0])
    mask = np.zeros((B, 5), dtype=np.int8)
    mask[[0, 1, 2], [4, 0, 2]] = 1
    free, _ = predict(policy, {"x": x}, deterministic=True)
    attached, _ = predict(policy, {"x": x, "action_mask": mask})
    passed, _ = predict(policy, {"x": x}, action_mask=torch.as_tensor(mask))
    assert attached.tolist() == passed.tolist() == [4, 0, 2] != free.tolist()
    alone, _ = predict(policy, {"x": x[0], "action_mask": mask[0]})
    assert alone == 4


@pytest.mark.parametrize("deterministic", [False, True])
def test_masked_actions_are_never_chosen(deterministic: bool) -> None:
    policy = make(action=spaces.MultiDiscrete([2, 4]))
    rows = 500
    x = np.random.default_rng(0).uniform(-1, 1, (rows, D)).astype(np.float32)
    mask = np.random.default_rng(1).random((rows, 6)) < 0.5
    mask[:, [0, 3]] = True
    chosen, _ = predict(policy, x, deterministic=deterministic, action_mask=mask)
    free, _ = predict(policy, x, deterministic=deterministic)

    def legal(action: np.ndarray) -> Any:
        return mask[np.arange(rows), action[:, 0]] & mask[np.arange(rows), 2 + action[:, 1]]

    assert legal(chosen).all() and not legal(free).all()


def test_samples_follow_the_generator_and_the_mode_needs_none() -> None:
    policy, x = make(), np.zeros((200, D), np.float32)

    def draw(seed: int, deterministic: bool = False) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        drawn: list[int] = predict(policy, x, deterministic=deterministic, generator=generator)[0].tolist()
        return drawn

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, True) == draw(2, True)
    distribution = policy.step(
        {"observation": torch.as_tensor(x)}, policy.initial_state(200), torch.ones(200, dtype=torch.bool)
    ).distribution
    assert isinstance(distribution, Categorical) and draw(1, True) == distribution.mode().squeeze(-1).tolist()


def test_nothing_of_it_is_recorded_for_gradients() -> None:
    _, (memory, last) = predict(make(), seen(1)[0])
    assert not any(leaf.requires_grad for leaf in leaves(memory)) and not last.requires_grad


WRONG: dict[str, tuple[str, Callable[[Policy, np.ndarray, PolicyState], object]]] = {
    "state": (r"state: expected 2 rows .* got 3", lambda p, x, s: predict(p, x[:2], s)),
    "start": (r"episode_start: expected \[3\], got \[2\]", lambda p, x, s: predict(p, x, s, [True, False])),
    "reward": (r"reward: expected \[3\], got \[4\]", lambda p, x, s: predict(p, x, s, reward=[0.0] * 4)),
    "mask": (
        r"action_mask: expected \[3, 5\], got \[3, 1\]",
        lambda p, x, s: predict(p, x, action_mask=np.ones((3, 1))),
    ),
    "shape": (r"space declares .* got \[3, 2\]", lambda p, x, s: predict(p, x[:, :2])),
    "kind": (r"observation 'x' is missing", lambda p, x, s: predict(make(spaces.Dict(x=BOX)), x)),
    "key": (r"observation 'x' is missing", lambda p, x, s: predict(make(spaces.Dict(x=BOX)), {"y": x})),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    policy, x = make(), seen(1)[0]
    message, call = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call(policy, x, predict(policy, x)[1])


def test_an_observation_that_is_no_number_never_reaches_the_memory() -> None:
    agent = PPO("CartPole-v1", width=8, num_envs=1)
    agent.predict(np.zeros(4, np.float32))
    with pytest.raises(FloatingPointError, match="observation 'observation' holds NaN or infinity"):
        agent.predict(np.array([0, np.nan, 0, 0], np.float32))
