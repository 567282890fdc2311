"""CartPole and Pendulum half seen: step for step as popgym's on gymnasium's physics, and their stated returns."""

import math
from typing import Any

import numpy as np
import popgym.envs.noisy_position_only_cartpole as noisy_cart
import popgym.envs.noisy_position_only_pendulum as noisy_pendulum
import popgym.envs.position_only_cartpole as cart
import popgym.envs.position_only_pendulum as swing
import popgym.envs.velocity_only_cartpole as fast_cart
import pytest
import torch
from game_laws import Policy, agrees, returns
from gymnasium.utils import seeding
from scipy.linalg import solve_discrete_are
from scipy.stats import kstest
from torch import Tensor

from rlmin.envs import cart_pole, pendulum
from rlmin.envs.cart_pole import CartPole
from rlmin.envs.pendulum import Pendulum
from rlmin.envs.tensor_env import Game, TensorEnv, Variant

ORIGINALS = {
    "PositionOnlyCartPole": cart,
    "NoisyPositionOnlyCartPole": noisy_cart,
    "VelocityOnlyCartPole": fast_cart,
    "PositionOnlyPendulum": swing,
    "NoisyPositionOnlyPendulum": noisy_pendulum,
}
LEVELS = ("Easy", "Medium", "Hard")
VARIANTS: dict[str, Variant] = cart_pole.VARIANTS | pendulum.VARIANTS
carts = pytest.mark.parametrize("id", [id.removesuffix("-v0") for id in cart_pole.VARIANTS])
pendulums = pytest.mark.parametrize("id", [id.removesuffix("-v0") for id in pendulum.VARIANTS])


class TableCart(CartPole):
    """Noise from a table [B, T + 1, 2]."""

    table: Tensor

    def noise(self, seed: Tensor, episode: Tensor, t: Tensor) -> Tensor:
        return self.table[torch.arange(len(t)), t] if hasattr(self, "table") else super().noise(seed, episode, t)


class TablePendulum(Pendulum):
    """Noise from a table [B, T + 1, 2]."""

    table: Tensor

    def noise(self, seed: Tensor, episode: Tensor, t: Tensor) -> Tensor:
        return self.table[torch.arange(len(t)), t] if hasattr(self, "table") else super().noise(seed, episode, t)


# Policies


def coin(rows: int) -> Policy:
    generator = torch.Generator().manual_seed(0)
    return lambda t, seen: torch.randint(2, (rows,), generator=generator)


def any_torque(rows: int, most: float = 2.0) -> Policy:
    generator = torch.Generator().manual_seed(0)
    return lambda t, seen: most * (2 * torch.rand(rows, 1, generator=generator) - 1)


def leaning(rows: int) -> Policy:
    """Without memory: right with probability sigmoid(20 theta)."""
    generator = torch.Generator().manual_seed(1)
    return lambda t, seen: torch.rand(rows, generator=generator).lt(torch.sigmoid(20 * seen[:, 1])).long()


def rocking(rows: int) -> Policy:
    """One bit of memory: right with probability sigmoid(88 theta + 6.4 x - 6.6 last action)."""
    generator, last = torch.Generator().manual_seed(2), torch.zeros(rows)

    def act(t: int, seen: Tensor) -> Tensor:
        chance = torch.sigmoid(88 * seen[:, 1] + 6.4 * seen[:, 0] - 6.6 * last)
        action = torch.rand(rows, generator=generator).lt(chance).long()
        last.copy_(2 * action - 1)
        return action

    return act


def braking(t: int, seen: Tensor) -> Tensor:
    """Without memory, of speeds: right if the pole's, and a tenth of the cart's, are to the right."""
    return torch.where(seen[:, 1] + 0.1 * seen[:, 0] > 0, 1, 0)


def pulled(t: int, seen: Tensor) -> Tensor:
    """Without memory: a torque against the lean."""
    return (2 * seen[:, :1] - 23 * seen[:, 1:]).clamp(-2, 2)


def linear_cart() -> tuple[Tensor, Tensor, Tensor]:
    """CartPole near its rest, state [x, x_speed, theta, theta_speed]: A [4, 4], B [4], and the gain [4] of LQR."""
    c = cart_pole
    moment = c.HALF * (4 / 3 - c.POLE / c.TOTAL)
    a, b = np.eye(4), np.zeros(4)
    a[0, 1] = a[2, 3] = c.STEP
    a[3, 2], b[3] = c.STEP * c.GRAVITY / moment, -c.STEP * c.FORCE / c.TOTAL / moment
    a[1, 2], b[1] = -a[3, 2] * c.MOMENT / c.TOTAL, c.STEP * c.FORCE / c.TOTAL - b[3] * c.MOMENT / c.TOTAL
    cost = np.diag([0.1, 0.1, 10.0, 1.0])
    p = solve_discrete_are(a, b[:, None], cost, np.array([[10.0]]))
    return torch.tensor(a), torch.tensor(b), torch.tensor(b @ p @ a / (10 + b @ p @ b))


def body(env: TensorEnv) -> Tensor:
    return torch.stack([env.state[name] for name in ("x", "x_speed", "theta", "theta_speed")], dim=1)


def balancing(env: TensorEnv) -> Policy:
    """Linear control of the whole state: push against what LQR would push against."""
    *_, gain = linear_cart()
    return lambda t, seen: (body(env) @ gain < 0).long()


class Filter:
    """CartPole: a Kalman filter of noisy positions, and linear control of its estimate."""

    def __init__(self, rows: int, sigma: float) -> None:
        self.a, self.b, self.gain = linear_cart()
        self.sigma, self.spread = sigma, torch.eye(4, dtype=torch.float64) * 0.1**2 / 12
        self.mean = torch.zeros(rows, 4, dtype=torch.float64)

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        positions = [0, 2]
        noise = self.sigma**2 * torch.eye(2, dtype=torch.float64)
        weight = self.spread[:, positions] @ torch.linalg.inv(self.spread[positions][:, positions] + noise)
        mean = self.mean + (seen.double() - self.mean[:, positions]) @ weight.T
        action = torch.where(mean @ self.gain < 0, 1, 0)
        self.mean = mean @ self.a.T + (2 * action - 1).unsqueeze(1) * self.b
        self.spread = self.a @ (self.spread - weight @ self.spread[positions]) @ self.a.T
        return action


def torque(angle: Tensor, speed: Tensor) -> Tensor:
    """Pump energy until that of rest upright is reached, then linear control near the top: [B, 1]."""
    off = (angle + math.pi) % (2 * math.pi) - math.pi
    energy = 0.5 * speed**2 + 15 * (torch.cos(angle) - 1)
    pump = torch.where(speed.abs() < 1e-3, 2.0, -energy * torch.sign(speed))
    hold = -20 * off - 5 * speed
    return torch.where(off.abs() < 0.6, hold, pump).clamp(-2, 2).unsqueeze(1)


def swinging(env: TensorEnv) -> Policy:
    return lambda t, seen: torque(env.state["angle"], env.state["speed"]).float()


class SwingFilter:
    """Pendulum: an extended Kalman filter of the noisy angle, and the control above of its estimate."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, t: int, seen: Tensor) -> Tensor:
        cos, sin = seen.double().unbind(1)
        if t == 0:
            self.angle, self.speed = torch.atan2(sin, cos), torch.zeros_like(cos)
            self.spread = torch.diag_embed(torch.stack((cos * 0 + self.sigma**2, cos * 0 + 1 / 3), dim=1))
        else:
            turned = torch.cos(self.angle) * sin - torch.sin(self.angle) * cos
            weight = self.spread[:, :, 0] / (self.spread[:, :1, 0] + self.sigma**2)
            self.angle, self.speed = self.angle + weight[:, 0] * turned, self.speed + weight[:, 1] * turned
            self.spread = self.spread - weight.unsqueeze(2) * self.spread[:, :1, :]
        action = torque(self.angle, self.speed)
        fall = 15 * torch.cos(self.angle) * 0.05
        self.speed = (self.speed + (15 * torch.sin(self.angle) + 3 * action[:, 0]) * 0.05).clamp(-8, 8)
        self.angle = self.angle + self.speed * 0.05
        one = torch.ones_like(fall)
        move = torch.stack((1 + 0.05 * fall, 0.05 * one, fall, one), dim=1).view(-1, 2, 2)
        self.spread = move @ self.spread @ move.transpose(1, 2)
        return action.float()


# Differential tests


def opened(id: str, rows: int) -> tuple[Any, list[Any], Tensor]:
    """Ours and the originals, their states and their noise equal, and our first observation."""
    name, options = id.removesuffix("-v0"), VARIANTS[f"{id}-v0"].options
    level = next(level for level in LEVELS if name.endswith(level))
    game = TableCart if "CartPole" in id else TablePendulum
    env: Any = game(rows, **options)
    originals = [getattr(ORIGINALS[name.removesuffix(level)], name)() for _ in range(rows)]
    assert env.single_action_space == originals[0].action_space
    assert env.single_observation_space == originals[0].observation_space
    first = torch.stack([torch.as_tensor(original.reset(seed=3 + i)[0]) for i, original in enumerate(originals)])
    streams = [seeding.np_random(3 + i)[0] for i in range(rows)]
    for stream in streams:
        stream.random(len(originals[0].state))  # the draws of the start
    noise = [stream.normal(0, env.sigma, (env.length + 1, 2)) for stream in streams]
    env.table = torch.as_tensor(np.stack(noise)).float()  # in row i that of the original i
    env.reset(seed=0)
    seen = env.set_state(env.get_state() | parts(env, originals))
    assert torch.equal(seen, first)
    return env, originals, seen


def parts(env: TensorEnv, originals: list[Any]) -> Game:
    """The originals' states, by our names."""
    states = torch.as_tensor(np.stack([original.state for original in originals]))
    names = ("x", "x_speed", "theta", "theta_speed") if "x" in env.state else ("angle", "speed")
    return {name: states[:, i].clone() for i, name in enumerate(names)}


def disagreements(env: TensorEnv, originals: list[Any], seen: Tensor, policy: Policy, *, every: int = 1) -> int:
    """Rows and steps at which `env` differs from `originals`: in an end, a reward (1e-8), or a number seen.

    Each `every` steps `env` is put into the originals' states. If that is every step, what is seen may be one unit of
    float32 in the last place off; else 1e-6. (torch's and numpy's sin and cos differ in the last bit of some float64,
    which a pole near the top magnifies, by 1.2 a step for the pendulum: no two such games agree for ever.)
    """
    alive, wrong, t = set(range(env.num_envs)), 0, 0
    while alive:
        action = policy(t, seen)
        seen, reward, terminated, truncated, infos = env.step(action)
        reached, t = infos.get("final_obs", seen).numpy(), t + 1
        ours = list(zip(reward.tolist(), terminated.tolist(), truncated.tolist(), strict=True))
        moves = action.numpy()
        for row in sorted(alive):
            observation, gain, over, cut, _ = originals[row].step(moves[row])
            assert observation.dtype == reached.dtype == np.float32
            allowed = 1e-6 if every > 1 else np.spacing(np.abs(observation))
            same = (np.abs(reached[row] - observation) <= allowed).all() and abs(ours[row][0] - gain) < 1e-8
            wrong += not (same and ours[row][1:] == (over, cut))
            if over or cut:
                alive.remove(row)
        if t % every == 0:
            env.set_state(env.get_state() | parts(env, originals))
    return wrong


def mixed(first: int, one: Policy, other: Policy) -> Policy:
    """The `first` rows by `one`, the rest by `other`."""
    return lambda t, seen: torch.cat((one(t, seen)[:first], other(t, seen)[first:]))


def players(env: TensorEnv, length: int) -> Policy:
    """Some rows play well to the end, the others at random: torques reach beyond their bounds."""
    well, rows = 2_000 // length, env.num_envs
    if isinstance(env, CartPole):
        return mixed(well, balancing(env), coin(rows))
    return mixed(well, swinging(env), any_torque(rows, 3.0))


@pytest.mark.parametrize("id", [id.removesuffix("-v0") for id in VARIANTS])
def test_every_step_is_that_of_the_original(id: str) -> None:
    rows = 60 if "CartPole" in id else 20
    env, originals, seen = opened(id, rows)
    assert disagreements(env, originals, seen, players(env, env.length)) == 0


@pytest.mark.parametrize("id", ["PositionOnlyCartPoleHard", "VelocityOnlyCartPoleHard", "PositionOnlyPendulumEasy"])
def test_fifty_steps_are_those_of_the_original(id: str) -> None:
    env, originals, seen = opened(id, 30)
    assert disagreements(env, originals, seen, players(env, env.length), every=50) == 0


@pytest.mark.parametrize("id", ["NoisyPositionOnlyCartPoleHard", "NoisyPositionOnlyPendulumHard"])
def test_other_noise_is_noticed(id: str) -> None:
    env, originals, seen = opened(id, 4)
    env.table = env.table.roll(1, 1)
    policy = coin(4) if "CartPole" in id else any_torque(4)
    assert disagreements(env, originals, seen, policy) > 4


@pytest.mark.parametrize("id", ["VelocityOnlyCartPoleEasy", "PositionOnlyPendulumEasy"])
def test_another_start_is_noticed(id: str) -> None:
    env, originals, seen = opened(id, 4)
    name = "theta" if "CartPole" in id else "angle"
    env.set_state(env.get_state() | {name: env.state[name] + 1e-5})
    policy = coin(4) if "CartPole" in id else any_torque(4)
    assert disagreements(env, originals, seen, policy, every=50) > 4


def test_the_fall_at_the_last_step_is_both_ends() -> None:
    """Its reward is that of any other step."""
    env, original = CartPole(1), cart.PositionOnlyCartPole()
    steps = 0
    for length in (200, 0):
        original.max_episode_length = length or steps
        original.reset(seed=0)
        env = CartPole(1, length=length or steps)
        env.reset(seed=0)
        env.set_state(env.get_state() | parts(env, [original]))
        over, steps = False, 0
        while not over:
            _, gain, over, cut, _ = original.step(1)
            _, reward, terminated, truncated, _ = env.step(torch.tensor([1]))
            steps += 1
    assert (over, cut, terminated.item(), truncated.item()) == (True, True, True, True)
    assert gain == 1 / steps == pytest.approx(reward.item())


def test_velocities_are_shown_from_the_first_step_on() -> None:
    env = CartPole(2, shows="velocities")
    seen, _ = env.reset(seed=0)
    assert torch.equal(seen, torch.stack((env.state["x"], env.state["theta"]), dim=1).float())
    seen, *_ = env.step(torch.tensor([0, 1]))
    assert torch.equal(seen, torch.stack((env.state["x_speed"], env.state["theta_speed"]), dim=1).float())


# The draws


def test_starts_are_uniform_and_noise_is_normal() -> None:
    pole, rod = CartPole(2_000, noise=0.3), Pendulum(2_000, noise=0.2)
    pole.reset(seed=0)
    rod.reset(seed=0)
    numbers = [20 * body(pole)[:, i] for i in range(4)] + [rod.state["angle"] / math.pi, rod.state["speed"]]
    for number in numbers:
        assert kstest(number, "uniform", (-1, 2)).pvalue > 1e-3
    assert kstest(numbers[0] ** 3, "uniform", (-1, 2)).pvalue < 1e-6
    noises = []
    for _ in range(3):
        noises += [pole.state["noise"] / 0.3, rod.state["noise"] / 0.2]
        pole.step(torch.zeros(2_000, dtype=torch.int64))
        rod.step(torch.zeros(2_000, 1))
    for noise in noises:
        assert kstest(noise.flatten(), "norm").pvalue > 1e-3
    drawn = torch.stack([*numbers[:4], *(noise.double()[:, i] for noise in noises[::2] for i in range(2))])
    crossed = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert crossed.abs().max() < 5 / 2_000**0.5, "starts and noise of any two steps have nothing to do with each other"


# Stated returns


@carts
def test_cart_pole_scores_as_stated(id: str) -> None:
    variant, rows = VARIANTS[f"{id}-v0"], 300
    env = CartPole(rows, **variant.options)
    assert variant.random is not None and agrees(returns(env, coin(rows), seed=10), variant.random)
    ceiling = Filter(rows, env.sigma) if env.sigma else balancing(env)
    assert agrees(returns(env, ceiling, seed=20), variant.ceiling)
    if env.shows == "positions":
        assert agrees(returns(env, leaning(rows), seed=30), variant.floor)
        if not env.sigma:
            assert agrees(returns(env, rocking(rows), seed=40), {200: 0.664, 400: 0.340, 600: 0.227}[env.length])
    else:
        without = {200: 1.0, 400: 0.999, 600: 0.852}[env.length]
        assert agrees(returns(env, braking, seed=30), without)


@pendulums
def test_pendulum_scores_as_stated(id: str) -> None:
    variant, rows = VARIANTS[f"{id}-v0"], 300
    env = Pendulum(rows, **variant.options)
    assert variant.random is not None and agrees(returns(env, any_torque(rows), seed=10), variant.random)
    assert agrees(returns(env, SwingFilter(env.sigma) if env.sigma else swinging(env), seed=20), variant.ceiling)
    assert agrees(returns(env, pulled, seed=30), variant.floor)


def test_bad_options_are_named() -> None:
    for options, found in (
        ({"shows": "all"}, "shows='all'"),
        ({"length": 0}, "length=0"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"shows": "velocities", "noise": 0.1}, "only positions"),
    ):
        with pytest.raises(ValueError, match=found):
            CartPole(1, **options)
    with pytest.raises(ValueError, match="length=0"):
        Pendulum(1, length=0)
