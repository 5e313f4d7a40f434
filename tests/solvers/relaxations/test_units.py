import cvxpy as cp
import numpy as np
import pytest

from solvers import solve
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.relaxations.units import _filled, units_bound
from tests.solvers.heuristics.test_units import posed


@pytest.mark.parametrize("seed", range(3))
def test_alternating_reaches_the_relaxation_that_cvxpy_solves(seed):
    width, keep = 3, 4
    problem = posed(width, prune=3, seed=seed)
    (block,) = blocks(problem)
    d = split_blocks([block])[0].d[0]
    v, z = cp.Variable(problem.W.T.shape), cp.Variable(7)
    R, B = problem.hessian.dense(0) - np.diag(d), block.B[0]
    root = np.linalg.cholesky(R + 1e-12 * np.eye(len(R)))
    scaled = cp.multiply(np.sqrt(d)[:, None], v)
    terms = [cp.quad_over_lin(scaled[width * u : width * (u + 1)], z[u]) for u in range(7)]
    cost = 0.5 * cp.sum_squares(root.T @ v) - cp.sum(cp.multiply(B, v)) + 0.5 * sum(terms)
    least = cp.Problem(cp.Minimize(cost), [z >= 0, z <= 1, cp.sum(z) == keep]).solve(solver="CLARABEL")
    bound, _ = units_bound(problem, lambda: None)
    assert bound <= block.constant + least + 1e-6
    assert bound == pytest.approx(block.constant + least, rel=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_it_bounds_the_optimum(seed):
    problem = posed(2, prune=3, seed=seed)
    best = solve(problem, "brute-force").value
    bound, mask = units_bound(problem, lambda: None)
    assert 0.1 * best < bound <= best
    assert problem.value(mask) >= best - 1e-9
    stopped, _ = units_bound(problem, lambda: True)
    assert stopped <= best


def test_shares_are_cut_at_one():
    z = _filled(np.array([9.0, 1.0, 1.0, 0.0]), 2)
    np.testing.assert_allclose(z, [1.0, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(_filled(np.array([3.0, 2.0, 1.0]), 3), 1.0)
    assert _filled(np.zeros(4), 2).tolist() == [0.5] * 4
