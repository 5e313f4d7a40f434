import numpy as np
import pytest

import solvers
from solvers import Budget, FactorHessian, SubsetProblem
from solvers.greedy import one_at_a_time
from solvers.greedy.one_at_a_time import surgeon_mask
from solvers.hessian.block_diagonal import BlockDiagonalHessian


def one_by_one(w, H, labels, room):
    """OBS by the inverse of what is left, anew for every weight."""
    w, left, room = w.copy(), np.ones(len(w), dtype=bool), room.copy()
    while room.sum():
        S = np.flatnonzero(left)
        C = np.linalg.inv(H[np.ix_(S, S)])
        costs = np.where(room[labels[S]] > 0, w[S] ** 2 / np.diagonal(C), np.inf)
        q = int(np.argmin(costs))
        w[S] -= w[S[q]] / C[q, q] * C[:, q]
        left[S[q]] = False
        room[labels[S[q]]] -= 1
    return ~left


def problem(seed, budget, n=70, N=9):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, n)) * rng.uniform(0.2, 3.0, n)
    return SubsetProblem(rng.standard_normal((1, n)), FactorHessian(X, 0.05), budget)


@pytest.mark.parametrize("budget", [Budget.per_layer(61), Budget.n_of_m(2, 5), Budget.per_row(0)])
@pytest.mark.parametrize(("steps", "candidates"), [(64, 512), (8, 12), (5, 5), (1, 1)])
def test_blocks_take_what_single_steps_take(budget, steps, candidates, monkeypatch):
    monkeypatch.setattr(one_at_a_time, "STEPS", steps)
    monkeypatch.setattr(one_at_a_time, "CANDIDATES", candidates)
    for seed in range(4):
        case = problem(seed, budget)
        labels, room = case.pools.labels[0], np.asarray(case.pools.prune)
        expected = one_by_one(case.W[0], case.hessian.dense(0), labels, room)
        assert (surgeon_mask(case)[0] == expected).all()


def test_a_block_ends_where_another_entry_was_cheaper(monkeypatch):
    monkeypatch.setattr(one_at_a_time, "CANDIDATES", 6)
    ends, right = [], one_at_a_time._Left._right

    def watched(self, V, z, candidates, taken, room):
        ends.append((right(self, V, z, candidates, taken, room), len(taken)))
        return ends[-1][0]

    monkeypatch.setattr(one_at_a_time._Left, "_right", watched)
    surgeon_mask(problem(0, Budget.per_layer(61)))
    assert any(steps < most for steps, most in ends)
    assert all(steps >= 1 for steps, _ in ends)


def test_rows_with_factors_of_their_own():
    rng = np.random.default_rng(1)
    X, W = rng.standard_normal((6, 20)), rng.standard_normal((3, 20))
    case = SubsetProblem(W, FactorHessian(X, 0.1), Budget.per_layer(33))
    H = BlockDiagonalHessian([FactorHessian(X, 0.1)] * 3).dense(0)
    expected = one_by_one(W.ravel(), H, np.zeros(60, int), np.array([33]))
    assert (surgeon_mask(case).ravel() == expected).all()


def test_a_stop_prunes_the_rest_by_costs():
    case = problem(2, Budget.n_of_m(2, 5))
    mask = surgeon_mask(case, lambda: "stop")
    assert case.pools.violation(mask) is None
    C = np.linalg.inv(case.hessian.dense(0))
    costs = case.W[0] ** 2 / np.diagonal(C)
    for start in range(0, 70, 5):
        assert (
            costs[start : start + 5][mask[0, start : start + 5]].max() < np.sort(costs[start : start + 5])[3]
        )


def test_solver_obs_takes_it_for_factors_that_are_never_formed(monkeypatch):
    monkeypatch.setattr("solvers.hessian.factor.WIDE", 16)
    case = problem(3, Budget.per_layer(40))
    assert case.hessian.implicit
    found = solvers.solve(case, "obs")
    expected = one_by_one(case.W[0], case.hessian.dense(0), np.zeros(70, int), np.array([40]))
    assert (found.mask[0] == expected).all()
