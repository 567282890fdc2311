"""Adam on all parameters as one vector."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlmin.distributed import Ranks


class Averaged(NamedTuple):
    """Means over the rows of all ranks."""

    norm: Tensor  # 2-norm of the mean gradient
    means: dict[str, Tensor]
    rows: Tensor | int


class FlatAdam(torch.optim.Adam):
    """Adam, with a few operations a step for any number of parameters.

    The parameters keep their storage. Their gradients are joined into one vector, their values are kept in another,
    and every step writes the new values back. Call `read` first if the values have changed elsewhere.

    Args:
        parameters: all of one dtype and device.
        lr, betas, eps: as in Adam.
        weight_decay: share, in units of lr, by which parameters of two or more axes shrink before each step; norms,
            biases and other vectors do not. With it this is AdamW.
        capturable: whether a step may be part of a CUDA graph; then the learning rate is a tensor.

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
        capturable: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.decay = weight_decay  # not Adam's own setting, which would decay every parameter
        self._tie(torch.cat([x.detach().reshape(-1) for x in self.parameters]))
        device = self.flat.device
        kind = torch.float64 if device.type == "cpu" else torch.float32  # what torch reads there
        rate = torch.tensor(lr, dtype=kind, device=device) if capturable else lr
        on_gpu = capturable and device.type == "cuda"
        super().__init__([self.flat], lr=rate, betas=betas, eps=eps, fused=True, capturable=on_gpu)

    def set_rate(self, lr: float) -> None:
        """Set the learning rate, in its tensor where there is one."""
        for group in self.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _tie(self, flat: Tensor) -> None:
        """Use `flat` as the storage of all parameters' values."""
        self.flat = flat
        pieces = torch.split(flat, [x.numel() for x in self.parameters])
        self.views = [piece.view(x.shape) for piece, x in zip(pieces, self.parameters, strict=True)]
        self.decayed = [view for view in self.views if view.dim() > 1] if self.decay else []
        self.kept: list[Tensor] = []  # values and moments before a step

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy or a pickle, without views of `flat`: a copied view would be a separate tensor."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"parameters": self.parameters, "decay": self.decay}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._tie(self.param_groups[0]["params"][0])

    @torch.no_grad()
    def read(self) -> None:
        """Read the present values of the parameters."""
        torch._foreach_copy_(self.views, self.parameters)

    @torch.no_grad()
    def take_gradient(self) -> Tensor:
        """Move the gradients of the parameters here, and clear them there; returns their 2-norm."""
        found = [x.new_zeros(x.numel()) if x.grad is None else x.grad.reshape(-1) for x in self.parameters]
        self.flat.grad = grad = torch.cat(found)
        for x in self.parameters:
            x.grad = None
        norm: Tensor = torch.linalg.vector_norm(grad)
        return norm

    @torch.no_grad()
    def average_gradient(self, ranks: Ranks, means: dict[str, Tensor], rows: Tensor | int) -> Averaged:
        """`take_gradient`; and of several ranks the mean gradient, by one exchange.

            mean = sum over ranks of (rows x) / sum over ranks of rows,    x: the gradient, and each of `means`

        Args:
            ranks: those that take this step together.
            means: scalars by name, each a mean over this rank's rows, as the loss is.
            rows: number of these rows; ranks may have different numbers.
        """
        norm = self.take_gradient()
        if ranks.is_alone:
            return Averaged(norm, means, rows)
        gradient = self.flat.grad
        assert gradient is not None, "take_gradient sets it"
        weight = torch.as_tensor(rows, dtype=gradient.dtype, device=gradient.device).reshape(1)
        scalars = torch.stack([x.detach() for x in means.values()]).to(gradient.dtype)
        total = ranks.sum(torch.cat([gradient * weight, scalars * weight, weight]))
        count = total[-1].clamp(min=1)
        torch.div(total[: len(gradient)], count, out=gradient)
        averages = dict(zip(means, total[len(gradient) : -1] / count, strict=True))
        return Averaged(torch.linalg.vector_norm(gradient), averages, total[-1])

    @torch.no_grad()
    def step_within(self, norm: Tensor, largest: float, skip: Tensor | None = None) -> None:
        """A step along the collected gradient of 2-norm `norm`, scaled down to `largest` if it is longer.

        All or nothing: after an error, values and moments are the earlier ones. Where `skip`, a float scalar on the
        device of the values, is 1, nothing changes either, and nobody has to wait for it to be known.
        """
        self.found_inf = skip  # torch's name
        self.grad_scale = (norm / largest).clamp(min=1).float()  # Adam's divisors, before anything else
        changed = [self.flat, *self.state.get(self.flat, {}).values()]
        kept = self._copy(changed)
        try:
            if self.decayed:
                share = self.param_groups[0]["lr"] * self.decay
                torch._foreach_mul_(self.decayed, 1 - (share if skip is None else share * (1 - skip)))
            self.step()
            torch._foreach_copy_(self.parameters, self.views)
        except BaseException:  # also Ctrl-C, which may come between any two of these
            torch._foreach_copy_(changed, kept)
            torch._foreach_copy_(self.parameters, self.views)
            if len(changed) == 1:  # the moments are made by the first step
                self.state[self.flat] = {}
            raise

    def _copy(self, tensors: list[Tensor]) -> list[Tensor]:
        """Copies of the tensors, always in the same memory: fresh memory costs more than the copying."""
        if [x.shape for x in self.kept] != [x.shape for x in tensors]:
            self.kept = [torch.empty_like(x) for x in tensors]
        torch._foreach_copy_(self.kept, tensors)
        return self.kept
