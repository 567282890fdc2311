"""Pendulum, partly observed: swing a pendulum up and hold it there given only its angle, with or without noise.

    PositionOnlyPendulum        200 / 150 / 100 steps
    NoisyPositionOnlyPendulum   200 steps, noise 0.1 / 0.2 / 0.3

Rules. The angle (rad, 0 upright, counted on beyond full turns) starts uniformly in +-pi, its speed in +-1 rad/s. At
every step the agent applies a torque; gymnasium's equations, one step of 0.05 s in float64, the speed clipped to +-8.
Observation: [cos, sin] of the angle, Box(-1, 1). Noise of standard deviation `noise` is added to both, also at reset,
and the sums are clipped to +-1.
Action: a torque, Box(-2, 2, (1,)); numbers beyond are clipped.
Reward: (8.1368 - cost)/8.1368/T with T = `length` and cost = angle^2 + 0.1 speed^2 + 0.001 torque^2 of the state
before the step, the angle in -pi..pi: 1/T at rest upright, -1/T at the worst. (8.1368022 exactly.)
Truncates after T steps.

Quirk of the original, kept: a float32 torque enters its own terms in float32.

Returns, Easy / Medium / Hard:

    of the whole state: pump energy, then linear control at the top     0.907 / 0.875 / 0.813
    the same of an extended Kalman filter's estimate                    with noise 0.896 / 0.729 / 0.645
    no memory: torque 2 cos - 23 sin                                    0.352, with noise 0.336 / 0.329 / 0.322
    uniformly random                                                    0.242, always

Source: popgym 1.0.7, PositionOnlyPendulum and NoisyPositionOnlyPendulum (Morad et al. 2023, arXiv:2303.01859) on
gymnasium 1.4, Pendulum, step for step.
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

GRAVITY, STEP, MAX_SPEED, MAX_TORQUE = 10.0, 0.05, 8.0, 2.0
HALF_COST = 16.2736044 / 2  # half of the largest cost: pi^2 + 0.1 MAX_SPEED^2 + 0.001 MAX_TORQUE^2

PULLED = "no memory: torque 2 cos - 23 sin"
SWINGING = "of the whole state: pump energy, then linear control at the top"
FILTER = "extended Kalman filter, its estimate controlled as if it were the state (not the optimum)"

VARIANTS = {
    f"{name}Pendulum{level}-v0": Variant(
        options=options,
        length=int(options["length"]),
        random=random,
        floor=floor,
        floor_policy=PULLED,
        ceiling=ceiling,
        ceiling_policy=FILTER if "noise" in options else SWINGING,
    )
    for name, level, options, random, floor, ceiling in (
        ("PositionOnly", "Easy", {"length": 200}, 0.242, 0.352, 0.907),
        ("PositionOnly", "Medium", {"length": 150}, 0.242, 0.352, 0.875),
        ("PositionOnly", "Hard", {"length": 100}, 0.242, 0.352, 0.813),
        ("NoisyPositionOnly", "Easy", {"length": 200, "noise": 0.1}, 0.242, 0.336, 0.896),
        ("NoisyPositionOnly", "Medium", {"length": 200, "noise": 0.2}, 0.242, 0.329, 0.729),
        ("NoisyPositionOnly", "Hard", {"length": 200, "noise": 0.3}, 0.242, 0.322, 0.645),
    )
}


class Pendulum(TensorEnv):
    """B games, which all end together; see the module for the rules.

    Args:
        num_envs: B.
        length: T, steps of an episode.
        noise: standard deviation of the noise on cos and sin, at least 0.
        shared: device and render_mode, see `Shared`.
    """

    def __init__(self, num_envs: int = 1, *, length: int = 200, noise: float = 0.0, **shared: Unpack[Shared]) -> None:
        if length < 1 or noise < 0:
            raise ValueError(f"length={length}, noise={noise}: expected at least 1 and at least 0")
        seen = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
        torque = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), dtype=np.float32)
        super().__init__(num_envs, seen, torque, **shared)
        self.length, self.sigma = length, noise

    def draw(self, seed: Tensor, episode: Tensor) -> Game:
        """angle, speed [B] float64; t [B] int64; if the game is noisy, noise [B, 2] float32."""
        angle, speed = uniform(key(seed, episode), torch.arange(2, device=self.device).unsqueeze(1))
        t = torch.zeros_like(seed)
        rod = {"angle": -math.pi + 2 * math.pi * angle, "speed": -1 + 2 * speed, "t": t}
        return rod | {"noise": self.noise(seed, episode, t)} if self.sigma else rod

    def advance(self, game: Game, action: Tensor) -> Outcome:
        angle, speed, t = game["angle"], game["speed"], game["t"] + 1
        torque = action[:, 0].clamp(-MAX_TORQUE, MAX_TORQUE)
        # order of operations and precision are gymnasium's
        off = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = off**2 + 0.1 * speed**2 + 0.001 * torque**2
        faster = speed + (3 * GRAVITY / 2 * torch.sin(angle) + 3.0 * torque) * STEP
        faster = faster.clamp(-MAX_SPEED, MAX_SPEED)
        reward = (HALF_COST - cost) / HALF_COST / self.length
        changes = {"angle": angle + faster * STEP, "speed": faster, "t": t}
        if self.sigma:
            changes["noise"] = self.noise(game["seed"], game["episode"], t)
        return Outcome(changes, reward, truncated=t >= self.length)

    def noise(self, seed: Tensor, episode: Tensor, t: Tensor) -> Tensor:
        """[B, 2] float32: the noise on cos and sin at time t; draws 2 + 2 t and 3 + 2 t."""
        return (self.sigma * normal_pair(key(seed, episode), 1 + t)).float().T

    def observe(self, game: Game) -> Tensor:
        seen = torch.stack((torch.cos(game["angle"]), torch.sin(game["angle"])), dim=1).float()
        return (seen + game["noise"]).clamp(-1, 1) if self.sigma else seen

    def board(self, game: Game) -> Board:
        angle, speed, t = float(game["angle"]), float(game["speed"]), int(game["t"])
        # gymnasium draws positive angles to the left
        rod = {(4 - round(r * math.cos(angle)), 4 - round(r * math.sin(angle))) for r in (1, 2, 3, 4)}
        rows = [[Cell("o", "cue") if (i, j) in rod else Cell() for j in range(9)] for i in range(9)]
        rows[4][4] = Cell("+", "wall")
        seen = [
            f"{number:+.3f}" for number in self.observe({name: part[None] for name, part in game.items()})[0].tolist()
        ]
        caption = f"step {t} of {self.length}\nseen: {', '.join(seen)}"
        return Board(rows, f"{caption}\nhidden: angle {angle:+.3f},\nspeed {speed:+.3f}/s")


class PendulumEnv(Single):
    """One game, see the module."""

    game = Pendulum
