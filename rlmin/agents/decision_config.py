"""The settings of the decision agent."""

from dataclasses import dataclass
from typing import Literal

from rlmin.checks import check_names
from rlmin.policy import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class DecisionConfig(PolicyConfig):
    """Every number the decision agent reads, beside those of the policy."""

    previous_action: bool = True  # feed the action taken one step ago
    normalize_observation: bool = True  # mean and variance of numeric observations, those of the data
    rows: int = 4  # B, streams of whole episodes, or windows, in a batch
    horizon: int = 128  # T, steps of each stream in a batch; memory goes on into the next
    windows: int | None = None  # K: train on windows of so many steps, with a fresh memory each; None: on streams
    condition: Literal["return", "none"] = "return"  # what the policy is told to reach; "none" is behaviour cloning
    return_scale: float | None = None  # env units of return shown as 1; None: a round number near the largest return
    top_fraction: float = 1.0  # share of the episodes, the best by return, that is trained on
    held_out: float = 0.05  # share of the episodes that is kept out, for the open-loop loss; rounded down
    loss: Literal["mse", "nll"] = "mse"  # of a Box action: squared error of the most likely one, or its likelihood
    lr: float = 1e-3  # AdamW's, after the warm-up
    lr_final: float | None = None  # and at the end, linear in between; None: a tenth of lr
    warmup_steps: int = 200  # gradient steps over which lr rises from 0; a tenth of training at most
    weight_decay: float = 1e-4  # of weights, not of biases and norms
    beta2: float = 0.95  # AdamW's memory of squared gradients; short, for what one step in a hundred teaches
    max_grad_norm: float = 1.0  # the gradient's 2-norm is scaled down to this
    autocast: bool = False  # matrix products in bfloat16; memory, losses and weights stay float32

    def __post_init__(self) -> None:
        PolicyConfig.__post_init__(self)
        for name in ("rows", "horizon", "windows"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("lr", "max_grad_norm", "return_scale"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number above 0")
        for name in ("warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")
        check_names("condition", [self.condition], ("return", "none"))
        check_names("loss", [self.loss], ("mse", "nll"))
        if not 0 < self.top_fraction <= 1:
            raise ValueError(f"top_fraction={self.top_fraction}: expected a share in (0, 1]")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}: expected a share in [0, 1)")
        if not 0 <= self.beta2 <= 1:
            raise ValueError(f"beta2={self.beta2}: expected a number in [0, 1]")
        if not self.share_memory:
            raise ValueError("share_memory=False: a decision agent has no critic that could have a memory of its own")

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
        """Whether the policy is told a return to reach."""
        return self.condition == "return"

    def check_context(self) -> None:
        """Raise a ValueError where attention would see more than it was trained on; of new agents, not of files."""
        if self.windows is None or self.encoder != "attention":
            return
        inputs = self.windows * (3 if self.tokens == "triple" else 1)
        if self.context > inputs:
            hint = f"windows={self.windows} train on {inputs} inputs of the memory; set context={inputs}"
            raise ValueError(f"context={self.context}: {hint}")
