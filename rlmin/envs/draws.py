"""Random draws as a function of seed, episode and position: the same on every device, with no generator to save.

    key(seed, episode)            one 64-bit number per row: splitmix64 of both
    bits(key, index)[i]           splitmix64 of key and index: draw number `index` of that episode

A game that needs several kinds of draws in one episode gives each kind its own range of indices. int64 products wrap
around, as intended.

Source: Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators (splitmix64).
"""

import math

import torch
from torch import Tensor

WORD = 1 << 64


def to_signed(number: int) -> int:
    """The int64 with the low 64 bits of `number`."""
    return (number + WORD // 2) % WORD - WORD // 2


WEYL, MIX_A, MIX_B = (to_signed(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def key(seed: Tensor, episode: Tensor) -> Tensor:
    """[B] int64 seeds and episode numbers -> [B] int64, uniform over all 64-bit numbers."""
    return _mix(seed * MIX_A + (episode + 1) * WEYL)


def bits(key: Tensor, index: Tensor | int) -> Tensor:
    """Draw `index` of each key, 64 bits: [B] and an int or [B] -> [B]; [B] and [n] through `key[:, None]` -> [B, n]."""
    step = to_signed((index + 1) * WEYL) if isinstance(index, int) else (index + 1) * WEYL
    return _mix(key + step)


def uniform(key: Tensor, index: Tensor | int) -> Tensor:
    """float64 in [0, 1), multiples of 2^-53; shapes as `bits`."""
    return _shift(bits(key, index), 11).double() * 2.0**-53


def integers(key: Tensor, index: Tensor | int, count: Tensor | int) -> Tensor:
    """int64 in 0..count-1 with equal chance (to within 2^-53); shapes as `bits`."""
    return (uniform(key, index) * count).long()


def normal(key: Tensor, index: Tensor | int) -> Tensor:
    """float64 from N(0, 1), by Box and Muller; uses draws 2 index and 2 index + 1."""
    radius = torch.sqrt(-2 * torch.log1p(-uniform(key, 2 * index)))
    return radius * torch.cos(2 * math.pi * uniform(key, 2 * index + 1))


def normal_pair(key: Tensor, index: Tensor) -> Tensor:
    """[2, B] float64 from N(0, 1), independent, for [B] and [B]: `normal`, and the number that it leaves unused."""
    radius, turn = uniform(key, torch.stack((2 * index, 2 * index + 1)))
    turn = 2 * math.pi * turn
    return torch.sqrt(-2 * torch.log1p(-radius)) * torch.stack((torch.cos(turn), torch.sin(turn)))


def permutation(key: Tensor, first: int, count: int) -> Tensor:
    """[B] keys -> [B, count] int64, each row 0..count-1 in random order; uses draws first..first+count-1."""
    index = torch.arange(first, first + count, device=key.device)
    return bits(key.unsqueeze(1), index).argsort(dim=1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * MIX_A
    z = (z ^ _shift(z, 27)) * MIX_B
    return z ^ _shift(z, 31)


def _shift(z: Tensor, count: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> count) & ((1 << (64 - count)) - 1)
