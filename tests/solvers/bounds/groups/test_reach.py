"""How far a matrix stays positive definite, against eigenvalues."""

import numpy as np
import pytest
import scipy.linalg

from solvers.bounds.groups.reach import reach
from tests.solvers.oracles import gram


@pytest.mark.parametrize("n", [1, 2, 8, 60])
@pytest.mark.parametrize("damping", [1.0, 1e-6])
def test_it_is_a_little_more_than_the_way_to_the_boundary(n, damping):
    rng = np.random.default_rng(n)
    for _ in range(5):
        A, change = gram(rng, n, damping), rng.standard_normal((n, n))
        change = change + change.T - 4 * n * np.eye(n)
        wanted = 1.0 / scipy.linalg.eigh(-change, A, eigvals_only=True)[-1]
        assert wanted * (1.0 - 1e-6) <= reach(np.linalg.cholesky(A), change) <= 1.1 * wanted


def test_what_only_grows_has_no_boundary():
    rng = np.random.default_rng(0)
    assert reach(np.linalg.cholesky(gram(rng, 6)), gram(rng, 6)) == np.inf
