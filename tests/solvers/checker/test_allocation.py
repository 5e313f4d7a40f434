import itertools
from fractions import Fraction

import numpy as np
import pytest

from solvers.checker.allocation import least_total


@pytest.mark.parametrize("seed", range(6))
def test_the_least_total_is_a_tight_lower_bound(seed):
    rng = np.random.default_rng(seed)
    curves = [rng.standard_normal(rng.integers(2, 6)) * 10.0 ** rng.integers(-5, 6) for _ in range(4)]
    size = sum(np.abs(curve).max() for curve in curves)
    for total in range(sum(len(curve) - 1 for curve in curves) + 1):
        exact = min(
            sum(Fraction(float(curve[k])) for curve, k in zip(curves, counts, strict=True))
            for counts in itertools.product(*(range(len(curve)) for curve in curves))
            if sum(counts) == total
        )
        found = least_total(curves, total)
        assert Fraction(found) <= exact
        assert found >= float(exact) - 1e-14 * size


def test_a_sum_is_rounded_down():
    assert least_total([np.array([1.0]), np.array([2.0**-60])], 0) <= 1.0
    assert least_total([np.array([-1.0]), np.array([-(2.0**-60)])], 0) < -1.0


def test_rows_without_a_bound_leave_none():
    assert least_total([np.array([0.0, -np.inf]), np.array([0.0, 0.0])], 1) == -np.inf
    assert np.isnan(least_total([np.array([np.nan, np.nan])], 1))


def test_more_than_there_is_cannot_be_pruned():
    assert least_total([np.array([0.0, 1.0])], 2) == np.inf
