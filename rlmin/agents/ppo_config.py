"""The settings of PPO."""

import math
from dataclasses import dataclass

from rlmin.learning.opening import InitialState, check_initial_state
from rlmin.policy import PolicyConfig
from rlmin.settings import Count, NonNegative, Positive, Share, ShareBelowOne, Size
from rlmin.vector.workers import STEP_TIMEOUT


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyConfig):
    """Settings of PPO, beside those of the policy. Derived sizes are properties, so they cannot disagree."""

    num_envs: Size = 8  # Number of environments B, where the environment is given by its id
    shards: Size = 1  # Groups of environments with random numbers of their own; several processes hold whole groups
    step_timeout: Positive | None = STEP_TIMEOUT  # Seconds that workers may take for a step or reset; None: for ever
    horizon: Size = 128  # Steps T of each environment between updates
    epochs: Count = 10  # Passes over a rollout
    minibatches: Count | None = None  # Gradient steps a pass, each on whole environments or windows; None: 4 if it can
    bptt: Count | None = None  # Steps that gradients flow back through, a divisor of horizon; None: the whole rollout
    initial_state: InitialState = "carried"  # Memory that a rollout begins with; carried: what it was before
    gamma: Share = 0.99  # Discount a step
    lam: Share = 0.95  # Decay lambda of the generalised advantage estimate
    lr: Positive = 1e-3  # Learning rate at the start of training
    lr_final: NonNegative | None = 0.0  # Learning rate at the end, linear between; None: constant
    beta2: ShareBelowOne = 0.999  # Decay of Adam's mean of squared gradients
    clip: Positive = 0.2  # Distance from 1 at which the probability ratio is clipped, at the start of training
    clip_final: NonNegative | None = None  # Clip distance at the end of training, linear between; None: constant
    ratio_penalty: NonNegative = 10.0  # Weight of the penalty on steps whose ratio has left [1/(1+clip), 1+clip]
    value_clip: Positive | None = None  # Distance from the old value to clip at, in deviations of targets; None: none
    value_weight: NonNegative = 0.5  # Weight of the value loss
    entropy: NonNegative = 1e-2  # Weight of the entropy bonus at the start of training
    entropy_final: NonNegative | None = None  # Weight of the entropy bonus at the end, linear between; None: constant
    max_grad_norm: Positive = 0.5  # Largest 2-norm of the gradient; a larger gradient is scaled down
    target_kl: Positive | None = None  # Divergence; beyond 1.5 times this the epochs of an update stop; None: never
    normalize_advantage: bool = True  # Whether advantages are brought to mean 0 and deviation 1 over the rollout
    normalize_value: bool = True  # Whether values are learned in the unit of all targets so far: mean 0, deviation 1
    normalize_return: bool = False  # Whether rewards are divided by the running deviation of the discounted return
    autocast: bool = False  # Whether matrix products are in bfloat16; memory, losses and weights stay float32
    tf32: bool | None = None  # Whether products and convolutions round to TF32 on a GPU; None: as torch's switches say
    cuda_graph: bool = True  # Whether an update, and a rollout of a native environment, are CUDA graphs where possible
    compile: bool = False  # Whether torch.compile compiles training's pass; needs a C++ compiler on the CPU

    def __post_init__(self) -> None:
        super().__post_init__()
        check_initial_state(self)
        if self.horizon % self.window:
            raise ValueError(f"bptt={self.window} must divide horizon={self.horizon}: windows tile the rollout")

    @property
    def window(self) -> int:
        """Steps gradients flow back through."""
        return self.horizon if self.bptt is None else self.bptt

    def minibatches_of(self, num_envs: int) -> int:
        """Minibatches of a rollout of `num_envs` environments; a ValueError if they would not be equal parts."""
        if num_envs % self.shards:
            raise ValueError(f"shards={self.shards} must divide num_envs={num_envs}: shards are of equal size")
        rows = num_envs // self.shards * (self.horizon // self.window)
        if self.minibatches is None:
            return math.gcd(4, rows)
        if rows % self.minibatches:
            what = "environments" if self.window == self.horizon else f"windows of {self.window} steps"
            of = "a rollout" if self.shards == 1 else f"each of the {self.shards} shards of a rollout"
            raise ValueError(
                f"minibatches={self.minibatches} must divide the {rows} {what} of {of} (num_envs={num_envs}): "
                f"recurrent minibatches are whole {what}; a shorter bptt gives more of them"
            )
        return self.minibatches
