"""Adam on one vector is Adam on the parameters it is made of."""

import torch
from torch import Tensor, nn

from rlmin.learning.flat_adam import FlatAdam


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def backward(net: nn.Module, step: int) -> None:
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    net(x * (step + 1)).square().sum().backward()


def plain(largest: float, steps: int = 4) -> list[Tensor]:
    net = network()
    adam = torch.optim.Adam(net.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-5)
    for step in range(steps):
        adam.zero_grad()
        backward(net, step)
        nn.utils.clip_grad_norm_(net.parameters(), largest)
        adam.step()
    return [x.detach() for x in net.parameters()]


def flat(largest: float, steps: int = 4) -> list[Tensor]:
    net = network()
    adam = FlatAdam(net.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-5)
    for step in range(steps):
        backward(net, step)
        adam.step_within(adam.take_gradient(), largest)
    return [x.detach() for x in net.parameters()]


def test_steps_are_those_of_adam_on_clipped_gradients() -> None:
    for largest in (1e9, 0.1, 1e-4):
        torch.testing.assert_close(flat(largest), plain(largest), rtol=1e-4, atol=1e-6)
    gap = max(float((x - y).abs().max()) for x, y in zip(flat(1e-4), plain(1e9), strict=True))
    assert gap > 1e-3, "clipping counts: the arm that must fail"


def test_the_gradient_is_moved_and_its_norm_is_that_of_all_parameters() -> None:
    net = network()
    adam = FlatAdam(net.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-5)
    backward(net, 0)
    want = torch.cat([x.grad.flatten() for x in net.parameters() if x.grad is not None]).norm()
    torch.testing.assert_close(adam.take_gradient(), want)
    assert all(x.grad is None for x in net.parameters())
    assert adam.take_gradient() == 0, "parameters without a gradient count as 0"


def test_values_set_elsewhere_are_read() -> None:
    net = network()
    adam = FlatAdam(net.parameters(), lr=1e-12, betas=(0.9, 0.99), eps=1e-5)
    with torch.no_grad():
        net[0].bias.fill_(3.0)  # type: ignore[operator]
    adam.read()
    backward(net, 0)
    adam.step_within(adam.take_gradient(), 1.0)
    torch.testing.assert_close(net[0].bias, torch.full_like(net[0].bias, 3.0))  # type: ignore[arg-type]


def test_with_decay_it_is_adamw_on_weights_and_adam_on_biases_and_norms() -> None:
    found, plain = network(), network()
    flat = FlatAdam(found.parameters(), lr=0.1, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.3)
    groups = [
        {"params": [x for x in plain.parameters() if x.dim() > 1], "weight_decay": 0.3},
        {"params": [x for x in plain.parameters() if x.dim() < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99), eps=1e-5)
    for step in range(4):
        for optimizer in (flat, adam):
            optimizer.param_groups[-1]["lr"] = optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        backward(found, step)
        flat.step_within(flat.take_gradient(), 1e9)
        adam.zero_grad()
        backward(plain, step)
        adam.step()
    torch.testing.assert_close(list(found.parameters()), list(plain.parameters()), rtol=1e-4, atol=1e-6)
    gaps = [
        float((x - y).abs().max().detach()) for x, y in zip(found.parameters(), network().parameters(), strict=True)
    ]
    assert min(gaps) > 1e-2
