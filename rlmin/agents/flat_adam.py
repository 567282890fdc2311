"""Adam on all parameters as one vector."""

from collections.abc import Iterable

import torch
from torch import Tensor


class FlatAdam(torch.optim.Adam):
    """Adam, with a handful of operations a step however many parameters there are.

    The parameters stay where they are. Their gradients are joined into one vector, their values are kept in another,
    and every step writes the new values back. `read` has to come first where the values have changed elsewhere.

    Args:
        parameters: of one dtype and device.
        lr, betas, eps: of Adam.
        weight_decay: share, in units of lr, by which parameters of two or more axes shrink before each step; norms,
            biases and other vectors do not. With it this is AdamW.

    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), for the decay.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.flat = torch.cat([x.detach().reshape(-1) for x in self.parameters])
        pieces = torch.split(self.flat, [x.numel() for x in self.parameters])
        self.views = [piece.view(x.shape) for piece, x in zip(pieces, self.parameters, strict=True)]
        self.decay = weight_decay  # not Adam's own setting of that name, which would decay every parameter
        self.decayed = [view for view in self.views if view.dim() > 1] if weight_decay else []
        super().__init__([self.flat], lr=lr, betas=betas, eps=eps, fused=True)

    @torch.no_grad()
    def read(self) -> None:
        """Take the values of the parameters as they are now."""
        torch._foreach_copy_(self.views, self.parameters)

    @torch.no_grad()
    def take_gradient(self) -> Tensor:
        """Move the gradients of the parameters, which are left with none, here; returns their 2-norm."""
        found = [x.new_zeros(x.numel()) if x.grad is None else x.grad.reshape(-1) for x in self.parameters]
        self.flat.grad = grad = torch.cat(found)
        for x in self.parameters:
            x.grad = None
        norm: Tensor = torch.linalg.vector_norm(grad)
        return norm

    @torch.no_grad()
    def step_within(self, norm: Tensor, largest: float) -> None:
        """A step along the gradient taken, of 2-norm `norm`, scaled down to `largest` where it is longer."""
        self.grad_scale = (norm / largest).clamp(min=1).float()  # what Adam divides by, before anything else
        if self.decayed:
            torch._foreach_mul_(self.decayed, 1 - self.param_groups[0]["lr"] * self.decay)
        self.step()
        torch._foreach_copy_(self.parameters, self.views)
