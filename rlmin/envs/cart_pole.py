"""CartPole, partly observed: balance a pole on a cart given only positions or only velocities, with or without noise.

    PositionOnlyCartPole        shows x and theta                     200 / 400 / 600 steps
    VelocityOnlyCartPole        shows x_speed and theta_speed         200 / 400 / 600 steps
    NoisyPositionOnlyCartPole   shows x and theta and normal noise    200 steps, noise 0.1 / 0.2 / 0.3

Rules. Cart position x (m) and speed, pole angle theta (rad, 0 upright) and speed start uniformly in +-0.05 each. At
every step the agent pushes the cart with 10 N to the left or right; gymnasium's equations, one Euler step of 0.02 s in
float64.
Observation, 2 floats: Box(+-[4.8, 0.419]) for positions, unbounded for velocities. Noise of standard deviation `noise`
is added to both numbers, also at reset, and the sums are clipped to the bounds.
Action: 0 left, 1 right, Discrete(2).
Reward: 1/T at every step, T = `length`.
End: terminates at |x| > 2.4 or |theta| > 12 degrees, truncates after T steps. Both ends are reported where the
pole falls at step T.

Quirks of the original, kept: the step at which the pole falls earns 1/T as well (the authors meant -1, but gymnasium
reports 0 only for steps beyond the end, which nobody plays); where velocities are shown, reset shows x and theta.

Returns, Easy / Medium / Hard:

    linear control of the whole state             1
    uniformly random                              0.112 / 0.056 / 0.037, with noise 0.112
    right with probability sigmoid(20 theta)      positions 0.253 / 0.127 / 0.085, with noise 0.233 / 0.192 / 0.164
    one bit of memory, the last action (+-1):
      sigmoid(88 theta + 6.4 x - 6.6 last action) positions 0.664 / 0.340 / 0.227 (an MLP that sees it: paper, 0.722)
    right where theta_speed + x_speed/10 > 0      velocities 1 / 0.999 / 0.852: hardly a task for memory
    Kalman filter and linear control              with noise 0.991 / 0.619 / 0.378 (paper's best: 0.995 / 0.659 / 0.404)

Source: popgym 1.0.7, PositionOnlyCartPole, NoisyPositionOnlyCartPole, VelocityOnlyCartPole (Morad et al. 2023,
arXiv:2303.01859) on gymnasium 1.4, CartPole, step for step.
"""

import math
from typing import Unpack

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlmin.envs.board import Board, Cell
from rlmin.envs.draws import key, normal_pair, uniform
from rlmin.envs.single import Single
from rlmin.envs.tensor_env import Game, Outcome, Shared, TensorEnv, Variant

GRAVITY, CART, POLE, HALF, FORCE, STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL, MOMENT = POLE + CART, POLE * HALF
X_LIMIT, THETA_LIMIT = 2.4, 12 * 2 * math.pi / 360

LEANING = "no memory: right with probability sigmoid(20 theta)"
BRAKING = "no memory: right where theta_speed + x_speed/10 > 0"
NEEDLESS = "random play; no memory is needed: right where theta_speed + x_speed/10 > 0 keeps the pole up"
LINEAR = "linear control of the whole state"
FILTER = "Kalman filter, linear control of its estimate (not the optimum)"

VARIANTS = {
    f"{name}CartPole{level}-v0": Variant(
        options={"length": length, **options},
        length=length,
        random=random,
        floor=floor,
        floor_policy=floor_policy,
        ceiling=ceiling,
        ceiling_policy=LINEAR if ceiling == 1 else FILTER,
    )
    for name, level, length, options, random, floor, floor_policy, ceiling in (
        ("PositionOnly", "Easy", 200, {}, 0.112, 0.253, LEANING, 1.0),
        ("PositionOnly", "Medium", 400, {}, 0.056, 0.127, LEANING, 1.0),
        ("PositionOnly", "Hard", 600, {}, 0.037, 0.085, LEANING, 1.0),
        ("VelocityOnly", "Easy", 200, {"shows": "velocities"}, 0.112, 0.112, NEEDLESS, 1.0),
        ("VelocityOnly", "Medium", 400, {"shows": "velocities"}, 0.056, 0.056, NEEDLESS, 1.0),
        ("VelocityOnly", "Hard", 600, {"shows": "velocities"}, 0.037, 0.852, BRAKING, 1.0),
        ("NoisyPositionOnly", "Easy", 200, {"noise": 0.1}, 0.112, 0.233, LEANING, 0.991),
        ("NoisyPositionOnly", "Medium", 200, {"noise": 0.2}, 0.112, 0.192, LEANING, 0.619),
        ("NoisyPositionOnly", "Hard", 200, {"noise": 0.3}, 0.112, 0.164, LEANING, 0.378),
    )
}


class CartPole(TensorEnv):
    """B games; see the module for the rules.

    Args:
        num_envs: B.
        shows: "positions" or "velocities".
        length: T, the most steps of an episode.
        noise: standard deviation of the noise on positions, at least 0.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        shows: str = "positions",
        length: int = 200,
        noise: float = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        if shows not in ("positions", "velocities"):
            raise ValueError(f"shows={shows!r}: expected 'positions' or 'velocities'")
        if length < 1 or noise < 0:
            raise ValueError(f"length={length}, noise={noise}: expected at least 1 and at least 0")
        if noise and shows == "velocities":
            raise ValueError(f"noise={noise}: only positions are shown with noise")
        high = np.array([np.inf] * 2 if shows == "velocities" else [2 * X_LIMIT, 2 * THETA_LIMIT], dtype=np.float32)
        seen = spaces.Box(-high, high, dtype=np.float32)
        super().__init__(num_envs, seen, spaces.Discrete(2), **shared)
        self.shows, self.length, self.sigma = shows, length, noise
        self._edges = torch.tensor([2 * X_LIMIT, 2 * THETA_LIMIT], device=self.device)

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """x, x_speed, theta, theta_speed [B] float64; t [B] int64; if the game is noisy, noise [B, 2] float32."""
        index = torch.arange(4, device=self.device).unsqueeze(1)
        x, x_speed, theta, theta_speed = -0.05 + 0.1 * uniform(key(seed, episode), index)
        t = torch.zeros_like(seed)
        body = {"x": x, "x_speed": x_speed, "theta": theta, "theta_speed": theta_speed, "t": t}
        return body | {"noise": self.noise(seed, episode, t)} if self.sigma else body

    def advance(self, game: Game, action: Tensor) -> Outcome:
        theta, theta_speed = game["theta"], game["theta_speed"]
        # the order of operations is gymnasium's: float64 results are the same to the last bit but for sin and cos
        cos, sin = torch.cos(theta), torch.sin(theta)
        push = (torch.where(action == 1, FORCE, -FORCE) + MOMENT * theta_speed**2 * sin) / TOTAL
        swing = (GRAVITY * sin - cos * push) / (HALF * (4.0 / 3.0 - POLE * cos**2 / TOTAL))
        thrust = push - MOMENT * swing * cos / TOTAL
        x, theta = game["x"] + STEP * game["x_speed"], theta + STEP * theta_speed
        changes = {
            "x": x,
            "x_speed": game["x_speed"] + STEP * thrust,
            "theta": theta,
            "theta_speed": theta_speed + STEP * swing,
            "t": game["t"] + 1,
        }
        if self.sigma:
            changes["noise"] = self.noise(game["seed"], game["episode"], changes["t"])
        fell = (x.abs() > X_LIMIT) | (theta.abs() > THETA_LIMIT)
        reward = torch.full_like(x, 1 / self.length)
        return Outcome(changes, reward, terminated=fell, truncated=changes["t"] >= self.length)

    def noise(self, seed: Tensor, episode: Tensor, t: Tensor) -> Tensor:
        """[B, 2] float32: the noise on the positions at time t; draws 4 + 2 t and 5 + 2 t."""
        return (self.sigma * normal_pair(key(seed, episode), 2 + t)).float().T

    def observe(self, game: Game) -> Tensor:
        positions = torch.stack((game["x"], game["theta"]), dim=1).float()
        if self.shows == "velocities":
            speeds = torch.stack((game["x_speed"], game["theta_speed"]), dim=1).float()
            return torch.where((game["t"] == 0).unsqueeze(1), positions, speeds)
        if not self.sigma:
            return positions
        return (positions + game["noise"]).clamp(-self._edges, self._edges)

    def board(self, game: Game) -> Board:
        x, theta, t = float(game["x"]), float(game["theta"]), int(game["t"])
        columns = [round(5 * (x / X_LIMIT + height * math.tan(theta))) + 7 for height in range(5)]
        rows = [[Cell("o", "cue") if j == columns[i] else Cell() for j in range(15)] for i in (4, 3, 2, 1)]
        rows.append([Cell("A", "agent") if j == columns[0] else Cell("_", "empty") for j in range(15)])
        row = {name: part[None].to(self.device) for name, part in game.items()}
        seen = [f"{number:+.3f}" for number in self.observe(row)[0].tolist()]
        state = (
            f"x {x:+.3f} ({float(game['x_speed']):+.3f}/s), theta {theta:+.3f} ({float(game['theta_speed']):+.3f}/s)"
        )
        return Board(rows, f"step {t} of {self.length}, seen: {', '.join(seen)}\nhidden: {state}")


class CartPoleEnv(Single):
    """One game, see the module."""

    game = CartPole
