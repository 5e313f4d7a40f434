import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem
from solvers.greedy.curves import row_curves
from solvers.greedy.elimination import BLOCK, STRIP, invert
from tests.solvers.oracles import dense_value, gram, make_problem

M = 2


def by_hand(problem):
    """Greedy orders and values, every candidate's cost recomputed from the problem at every step."""
    orders = []
    for r in range(problem.m):
        order = []
        while len(order) < problem.n:
            costs = {}
            for j in set(range(problem.n)) - set(order):
                mask = np.zeros((1, problem.n), dtype=bool)
                mask[0, [*order, j]] = True
                row = SubsetProblem(
                    problem.W[r : r + 1],
                    problem.hessian.dense(r),
                    Budget.per_row(len(order) + 1),
                    refit=problem.refit,
                )
                costs[j] = dense_value(row, mask)
            order.append(min(costs, key=costs.get))
        orders.append(order)
    return orders


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_the_cheapest_weight_goes_next(refit, kind, rng):
    problem = make_problem(rng, Budget.per_row(0), n=6, refit=refit, kind=kind)
    curves = row_curves(problem.W, problem.hessian, refit=refit)
    assert curves.order.tolist() == by_hand(problem)


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_every_value_is_the_problems_at_its_mask(refit, kind, rng):
    n = 2 * BLOCK + 5
    curved = make_problem(rng, Budget.per_row(0), n=n, refit=refit, kind=kind)
    curves = row_curves(curved.W, curved.hessian, refit=refit)
    assert [sorted(row) for row in curves.order.tolist()] == [list(range(n))] * M
    for k in range(0, n + 1, 3):
        problem = SubsetProblem(curved.W, curved.hessian, Budget.per_row(k), refit=refit)
        values = problem.row_values(curves.masks(k))
        np.testing.assert_allclose(curves.values[:, k], values, rtol=1e-8, atol=1e-12 * problem.scale)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_delaying_the_trailing_update_changes_nothing(block, rng, monkeypatch):
    W, H = rng.standard_normal((M, 20)), gram(rng, 20)
    expected = row_curves(W, H)
    monkeypatch.setattr("solvers.greedy.curves.BLOCK", block)
    found = row_curves(W, H)
    np.testing.assert_array_equal(found.order, expected.order)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-10)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_zero_weights_go_first_and_cost_nothing(refit, rng):
    W = rng.standard_normal((1, 7))
    W[0, [2, 5]] = 0.0
    curves = row_curves(W, np.diag(rng.uniform(1, 2, 7)), refit=refit)
    assert sorted(curves.order[0, :2].tolist()) == [2, 5]
    assert curves.values[0, :3].tolist() == [0.0, 0.0, 0.0]
    assert curves.values[0, 3] > 0


def test_all_weights_zero(rng):
    curves = row_curves(np.zeros((M, 5)), gram(rng, 5))
    assert [sorted(row) for row in curves.order.tolist()] == [list(range(5))] * M
    np.testing.assert_array_equal(curves.values, 0.0)


def test_duplicate_inputs_cost_next_to_nothing_to_merge(rng):
    """One of two identical inputs can go for the price of its damping."""
    X = rng.standard_normal((50, 4))
    X = np.hstack([X, X[:, :1]])
    H = X.T @ X / 50 + 1e-6 * np.eye(5)
    W = np.array([[0.5, 2.0, 2.0, 2.0, 2.0]])
    curves = row_curves(W, H)
    assert curves.order[0, 0] in (0, 4)
    assert curves.values[0, 1] < 1e-6
    assert curves.values[0, 2] > 0.1


def test_masks_take_the_first_of_each_order(rng):
    curves = row_curves(rng.standard_normal((3, 6)), gram(rng, 6))
    masks = curves.masks([0, 2, 6])
    assert masks.sum(axis=1).tolist() == [0, 2, 6]
    assert set(np.flatnonzero(masks[1])) == set(curves.order[1, :2].tolist())
    assert curves.masks(3).sum(axis=1).tolist() == [3, 3, 3]


def test_the_inputs_stay_as_they_are(rng):
    W, H = rng.standard_normal((M, 6)), gram(rng, 6)
    before = W.copy(), H.copy()
    row_curves(W, H)
    np.testing.assert_array_equal(W, before[0])
    np.testing.assert_array_equal(H, before[1])


def test_bad_curvatures_are_refused(rng):
    with pytest.raises(ValueError, match=r"^hessian is singular"):
        row_curves(np.ones((M, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"^hessian has shape"):
        row_curves(np.ones((M, 3)), np.eye(4))
    assert row_curves(np.ones((M, 3)), np.ones((3, 3)), refit=False).values[0, 3] == pytest.approx(4.5)


def test_a_factor_gives_the_curves_of_its_matrix(rng):
    W, X = rng.standard_normal((M, 6)), rng.standard_normal((4, 6))
    H = X.T @ X / 4 + 0.2 * np.eye(6)
    np.testing.assert_allclose(
        row_curves(W, FactorHessian(X, 0.2)).values, row_curves(W, H).values, rtol=1e-10
    )


def test_inverse(rng):
    H = gram(rng, 9)
    inverse = invert(H)
    np.testing.assert_array_equal(inverse, inverse.T)
    np.testing.assert_allclose(inverse @ H, np.eye(9), atol=1e-10)
    with pytest.raises(ValueError, match=r"^hessian is singular; add damping"):
        invert(np.zeros((2, 2)))


def test_a_gradient_counts_in_greedy_selection(rng):
    W, H, G = rng.standard_normal((M, 6)), gram(rng, 6), rng.standard_normal((M, 6))
    curves = row_curves(W, H, refit=False, gradient=G)
    for k in range(7):
        problem = SubsetProblem(W, H, Budget.per_row(k), refit=False, gradient=G)
        np.testing.assert_allclose(problem.row_values(curves.masks(k)), curves.values[:, k], atol=1e-12)
    first = 0.5 * np.diag(H) * W**2 - G * W
    assert np.array_equal(curves.order[:, 0], first.argmin(axis=1))


PEAK = """
import sys
import numpy as np
import solvers.greedy.curves, solvers.greedy.elimination, solvers.runtime.parallel
from solvers import DenseHessian

def memory(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))

solvers.greedy.elimination.workers = solvers.runtime.parallel.workers = lambda: 4
n, limit, rows = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
X = np.random.default_rng(0).standard_normal((n, n))
H = DenseHessian(X @ X.T / n + 0.1 * np.eye(n))
del X
solvers.greedy.curves.row_curves(np.ones((1, 8)), np.eye(8))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = memory("VmRSS")
solvers.greedy.curves.row_curves(np.ones((rows, n)), H, memory=int(limit * 8 * n * n))
print((memory("VmHWM") - before) / (8 * n * n))
"""


def peak(n, matrices, rows=8):
    """Matrices `[n, n]` that curves of some rows take in four threads, asked for no more than so many."""
    call = [sys.executable, "-c", PEAK, *map(str, (n, matrices, rows))]
    return float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)


PEAKS = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc"
)


@PEAKS
def test_the_limit_on_memory_is_kept():
    strips = 4 * 2 * STRIP / 1000
    assert 1.5 < peak(1000, 2) < 2 + strips
    assert peak(1000, 3) < 3 + strips
    assert 4.5 < peak(1000, 9) < 5 + strips


@PEAKS
@pytest.mark.slow
def test_the_limit_on_memory_is_kept_by_rows_of_4096():
    assert peak(4096, 3, rows=4) < 3 + 4 * 2 * STRIP / 4096
