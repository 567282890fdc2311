"""The settings of the decision agent."""

from dataclasses import dataclass
from typing import Annotated, Literal

from rlmin.learning.opening import InitialState, check_initial_state
from rlmin.policy import PolicyConfig
from rlmin.settings import CountOrZero, NonNegative, Positive, Range, ShareBelowOne, Size


@dataclass(frozen=True, kw_only=True)
class DecisionConfig(PolicyConfig):
    """Settings of the decision agent, beside those of the policy."""

    previous_action: bool = True  # Whether the policy sees the action taken one step ago
    normalize_observation: bool = True  # Whether numeric observations are normalised by mean and variance of the data
    rows: Size = 4  # Rows B of a batch: streams of whole episodes, or windows
    horizon: Size = 128  # Steps T of each stream in a batch; memory goes on into the next
    windows: Size | None = None  # Steps K of windows to train on, with a fresh memory each; None: streams
    initial_state: InitialState = "carried"  # Memory that a batch begins with; carried: what it was, nothing in windows
    condition: Literal["return", "none"] = "return"  # Target that the policy is shown; "none" is behaviour cloning
    return_scale: Positive | None = None  # Env units of return shown as 1; None: a round number near the largest return
    top_fraction: Annotated[float, Range(above=0, most=1)] = 1.0  # Share of the episodes, best by return, to train on
    held_out: ShareBelowOne = 0.05  # Share of the episodes that is kept out, for the open-loop loss; rounded down
    loss: Literal["mse", "nll"] = "mse"  # Loss of a Box action: squared error of the most likely one, or likelihood
    lr: Positive = 1e-3  # Learning rate after the warm-up
    lr_final: NonNegative | None = None  # Learning rate at the end, linear in between; None: a tenth of lr
    warmup_steps: CountOrZero = 200  # Gradient steps over which lr rises from 0; a tenth of training at most
    weight_decay: NonNegative = 1e-4  # Decay of weights, not of biases and norms
    beta2: ShareBelowOne = 0.95  # Decay of AdamW's mean of squared gradients; short, for what one step in 100 teaches
    max_grad_norm: Positive = 1.0  # Largest 2-norm of the gradient; a larger gradient is scaled down
    autocast: bool = False  # Whether matrix products are in bfloat16; memory, losses and weights stay float32
    tf32: bool | None = None  # Whether products and convolutions round to TF32 on a GPU; None: as torch's switches say

    def __post_init__(self) -> None:
        super().__post_init__()
        check_initial_state(self)
        if not self.share_memory:
            raise ValueError("share_memory=False: a decision agent has no critic that could have a memory of its own")
        if self.privileged:
            raise ValueError("privileged: a decision agent has no critic that could read more than the policy")
        if self.squash and self.loss == "mse":
            raise ValueError("squash=True: the squared error is of actions that are not squashed; set loss='nll'")

    @property
    def steps(self) -> int:
        """T of a batch."""
        return self.horizon if self.windows is None else self.windows

    @property
    def last_lr(self) -> float:
        """The learning rate at the end of training."""
        return 0.1 * self.lr if self.lr_final is None else self.lr_final

    @property
    def conditioned(self) -> bool:
        """Whether the policy is return-conditioned."""
        return self.condition == "return"

    def check_context(self) -> None:
        """Raise a ValueError if the memory would reach further than in training; for new agents, not for files."""
        window = self.cell.window
        if self.windows is None or window is None:
            return
        inputs = self.windows * (3 if self.tokens == "triple" else 1)
        seen = self.cell_options[window]
        if seen > inputs:
            hint = f"windows={self.windows} train on {inputs} inputs of the memory; set {window}={inputs}"
            raise ValueError(f"{window}={seen}: {hint}")
