import numpy as np
import pytest

from solvers.bounds.waterfill import smoothed_shares
from solvers.relaxations.sdp import import_cvxpy

cp = import_cvxpy()


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
