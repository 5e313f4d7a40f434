"""Indicators that meet their counts, against bisection one pool at a time."""

import numpy as np
import pytest
import torch

from solvers.bounds.waterfill import fill, smoothed_shares
from solvers.relaxations.sdp import import_cvxpy

cp = import_cvxpy()


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


@pytest.mark.parametrize("width", [1e-6, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("labels", [[0] * 9, [0, 0, 0, 0, 1, 1, 2, 2, 2]])
def test_shares_are_the_maximiser(width, labels, rng):
    labels = np.array(labels)
    take = np.array([3]) if not labels.any() else np.array([1, 2, 1])
    scores = rng.standard_normal(9)
    z = cp.Variable(9)
    limits = [z >= 0, z <= 1, *(cp.sum(z[labels == p]) == k for p, k in enumerate(take))]
    best = cp.Problem(cp.Maximize(scores @ z - 0.5 * width * cp.sum_squares(z)), limits).solve()
    found = smoothed_shares(scores, labels, take, width)
    np.testing.assert_allclose(np.bincount(labels, weights=found), take, rtol=1e-12)
    assert ((found >= 0) & (found <= 1)).all()
    value = scores @ found - 0.5 * width * found @ found
    assert best - 1e-6 <= value <= best + 1e-5 * (1 + abs(best))


@pytest.mark.parametrize("take", [0, 5, 2])
def test_ties_are_shared_and_pools_may_take_nothing_or_all(take):
    found = smoothed_shares(np.full(5, 2.0), np.zeros(5, np.int64), np.array([take]), 0.1)
    np.testing.assert_allclose(found, take / 5, atol=1e-12)


def test_narrow_widths_take_the_largest(rng):
    scores, labels = rng.standard_normal(200), np.repeat([0, 1], 100)
    found = smoothed_shares(scores, labels, np.array([30, 70]), 1e-9)
    for p, k in ((0, 30), (1, 70)):
        order = np.argsort(-scores[labels == p])
        np.testing.assert_allclose(found[labels == p][order[:k]], 1.0, atol=1e-6)
        np.testing.assert_allclose(found[labels == p][order[k:]], 0.0, atol=1e-6)
