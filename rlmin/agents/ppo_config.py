"""The settings of PPO."""

import math
from dataclasses import dataclass

from rlmin.policy import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyConfig):
    """Every number PPO reads, beside those of the policy. Derived sizes are properties, so they cannot disagree."""

    num_envs: int = 16  # B, where the environment is given by its id
    horizon: int = 128  # T, steps of each environment between updates
    epochs: int = 4  # passes over a rollout
    minibatches: int | None = None  # gradient steps a pass, each on whole environments (or windows); None: 4 if it can
    bptt: int | None = None  # steps gradients flow back through, a divisor of horizon; None: the whole rollout
    gamma: float = 0.99  # discount a step
    lam: float = 0.95  # of the generalised advantage estimate
    lr: float = 1e-3  # Adam's, at the start
    lr_final: float | None = None  # and at the end, linear in between; None: constant
    beta2: float = 0.999  # Adam's memory of squared gradients
    clip: float = 0.2  # how far the probability ratio may leave 1
    value_clip: float | None = None  # how far a value may leave the old one; None: freely
    value_weight: float = 0.5  # of the value loss
    entropy: float = 1e-3  # weight of the entropy bonus, at the start
    entropy_final: float | None = None  # and at the end, linear in between; None: constant
    max_grad_norm: float = 0.5  # the gradient's 2-norm is scaled down to this
    target_kl: float | None = None  # stop the epochs of an update beyond 1.5 times this divergence; None: never
    normalize_advantage: bool = True  # to mean 0 and deviation 1 over the rollout
    normalize_return: bool = False  # divide rewards by the running deviation of the discounted return
    autocast: bool = False  # matrix products in bfloat16; memory, losses and weights stay float32
    cuda_graph: bool = True  # one CUDA graph for a rollout of a native environment, where that is possible
    compile: bool = False  # torch.compile for training's pass over a minibatch; needs a C++ compiler on the CPU

    def __post_init__(self) -> None:
        PolicyConfig.__post_init__(self)
        for name in ("num_envs", "horizon", "epochs", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('window', 'bptt')}={getattr(self, name)}: expected at least 1")
        for name in ("lr", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number above 0")
        for name in ("gamma", "lam", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number in [0, 1]")
        if self.horizon % self.window:
            raise ValueError(f"bptt={self.bptt} must divide horizon={self.horizon}: windows tile the rollout")

    @property
    def window(self) -> int:
        """Steps gradients flow back through."""
        return self.horizon if self.bptt is None else self.bptt

    def minibatches_of(self, num_envs: int) -> int:
        """Minibatches of a rollout of `num_envs` environments; a ValueError where they would not be equal parts."""
        rows = num_envs * (self.horizon // self.window)
        if self.minibatches is None:
            return math.gcd(4, rows)
        if self.minibatches < 1 or rows % self.minibatches:
            what = "environments" if self.window == self.horizon else f"windows of {self.window} steps"
            raise ValueError(
                f"minibatches={self.minibatches} must divide the {rows} {what} of a rollout (num_envs={num_envs}): "
                f"recurrent minibatches are whole {what}; a shorter bptt gives more of them"
            )
        return self.minibatches
