"""Factors and inverses by address, against NumPy's."""

import numpy as np
import pytest

from solvers.runtime.unlocked import factored, inverted
from tests.solvers.oracles import gram


@pytest.mark.parametrize("n", [1, 2, 7, 130])
def test_factors_and_inverses_are_those_of_numpy_and_leave_their_input(n):
    A = gram(np.random.default_rng(n), n, 0.5)
    A = 0.5 * (A + A.T)
    before = A.copy()
    factor = factored(A)
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(A), rtol=1e-9, atol=1e-12)
    kept = factor.copy()
    np.testing.assert_allclose(np.triu(inverted(factor)), np.triu(np.linalg.inv(A)), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(factor, kept)
    np.testing.assert_array_equal(A, before)


def test_what_is_not_definite_has_no_factor():
    assert factored(np.diag([1.0, -1.0])) is None
    with pytest.raises(ValueError, match="zero on its diagonal"):
        inverted(np.diag([1.0, 0.0]))
