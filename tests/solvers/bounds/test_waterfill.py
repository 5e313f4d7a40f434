"""Indicators that meet their counts, against bisection one pool at a time."""

import numpy as np
import pytest
import torch

from solvers.bounds.waterfill import fill


def bisected(offset, slope, count):
    """The level of one pool, by two hundred halvings."""
    low, high = -1e9, 1e9
    for _ in range(200):
        level = 0.5 * (low + high)
        if np.clip(offset + level * slope, 0, 1).sum() > count:
            high = level
        else:
            low = level
    return np.clip(offset + low * slope, 0, 1)


@pytest.mark.parametrize("size", [3, 7, 50], ids=["narrow", "odd", "wide"])
@pytest.mark.parametrize("warm", [False, True])
def test_shares_are_those_of_bisection(size, warm, rng):
    offset, slope = rng.standard_normal((40, size)), rng.uniform(0.05, 20.0, (40, size))
    count = rng.integers(0, size + 1, (40, 1)).astype(float)
    start = torch.tensor(rng.standard_normal((40, 1))) if warm else None
    x, level = fill(*(torch.tensor(A) for A in (offset, slope, count)), start)
    assert (x.shape, level.shape) == ((40, size), (40, 1))
    for r in range(40):
        np.testing.assert_allclose(x[r], bisected(offset[r], slope[r], count[r, 0]), atol=1e-7)
    np.testing.assert_allclose(x, np.clip(offset + level.numpy() * slope, 0, 1), atol=1e-12)


def test_pools_that_are_done_stay_where_they_are(rng):
    """An easy pool beside hard ones, whose slopes span ten orders of magnitude."""
    slope = torch.tensor(10.0 ** rng.uniform(-10, 0, (30, 8)))
    slope[0] = 1.0
    x, _ = fill(torch.full((30, 8), -1.0, dtype=torch.float64), slope, torch.full((30, 1), 4.0).double())
    np.testing.assert_allclose(x[0], 0.5, atol=1e-8)
    np.testing.assert_allclose(x.sum(1), 4.0, rtol=1e-8)


def test_counts_out_of_reach_are_approached():
    """Two slopes only: no level makes three shares."""
    x, _ = fill(torch.zeros(1, 4), torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[3.0]]))
    assert x.tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_single_precision_is_kept(rng):
    slope = torch.tensor(rng.uniform(0.1, 1.0, (5, 200)), dtype=torch.float32)
    x, level = fill(-torch.ones_like(slope), slope, torch.full((5, 1), 77.0))
    assert (x.dtype, level.dtype) == (torch.float32, torch.float32)
    np.testing.assert_allclose(x.sum(1), 77.0, rtol=2e-5)
