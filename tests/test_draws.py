"""Counter-based draws: known answers of splitmix64, uniform, and unrelated to each other."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from rlmin.envs.draws import bits, integers, key, normal, permutation, uniform

WORD = 1 << 64


def splitmix(z: int) -> int:
    """The finaliser, in Python's whole numbers."""
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % WORD
    return z ^ z >> 31


@pytest.mark.parametrize("seed", [0, 1, 77, (1 << 62) + 5])
@pytest.mark.parametrize("episode", [0, 3])
def test_keys_and_bits_are_splitmix64(seed: int, episode: int) -> None:
    found = key(torch.tensor([seed]), torch.tensor([episode]))
    wanted = splitmix((seed * 0xBF58476D1CE4E5B9 + (episode + 1) * 0x9E3779B97F4A7C15) % WORD)
    assert int(found[0]) % WORD == wanted
    for index in (0, 1, 9, 1000):
        drawn = splitmix((wanted + (index + 1) * 0x9E3779B97F4A7C15) % WORD)
        assert int(bits(found, index)[0]) % WORD == drawn
        assert int(bits(found, torch.tensor([index]))[0]) % WORD == drawn, "a number and a tensor mean the same"


def keys(count: int) -> torch.Tensor:
    seed = torch.arange(count)
    return key(seed, torch.zeros_like(seed))


def test_uniform_numbers_are_uniform_and_normal_ones_normal() -> None:
    assert kstest(uniform(keys(4000), 3).numpy(), "uniform").pvalue > 1e-3
    assert kstest(normal(keys(4000), 3).numpy(), "norm").pvalue > 1e-3
    assert kstest(uniform(keys(4000), 3).numpy() ** 1.1, "uniform").pvalue < 1e-3, "the test has the power to tell"


def test_draws_of_neighbouring_seeds_episodes_and_indices_are_unrelated() -> None:
    seed = torch.arange(3000)
    columns = [
        uniform(key(seed + s, seed * 0 + e), i).numpy() for s, e, i in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    related = np.corrcoef(np.stack(columns)) - np.eye(4)
    assert np.abs(related).max() < 4 / 3000**0.5


def test_integers_have_equal_chances() -> None:
    counts = np.bincount(integers(keys(7000), 2, 7).numpy(), minlength=7)
    assert ((counts - 1000) ** 2 / 1000).sum() < chi2.ppf(0.999, 6)


def test_permutations_are_permutations_and_every_order_is_as_likely() -> None:
    found = permutation(keys(6000), 4, 3)
    assert torch.equal(found.sort(1).values, torch.arange(3).expand(6000, 3))
    orders = np.bincount((found @ torch.tensor([9, 3, 1])).numpy())
    counts = orders[orders > 0]
    assert len(counts) == 6 and ((counts - 1000) ** 2 / 1000).sum() < chi2.ppf(0.999, 5)
