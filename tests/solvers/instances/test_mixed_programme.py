"""Programmes of others: evaluated, and recognised where they are selection problems."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import solve
from solvers.instances import MixedProgramme


def programme(rng, n=6, **changes):
    A = rng.standard_normal((n, n))
    fields = {
        "name": "p", "Q": sp.csr_array(A @ A.T), "c": rng.standard_normal(n), "constant": 0.5,
        "A": sp.csr_array(np.ones((1, n))), "row_lower": np.array([2.0]), "row_upper": np.array([2.0]),
        "lower": np.zeros(n), "upper": np.ones(n), "whole": np.ones(n, bool),
    }  # fmt: skip
    return MixedProgramme(**(fields | changes))


def least(p, n):
    points = (np.array(x, float) for x in itertools.product((0, 1), repeat=n))
    return min(p.objective(x) for x in points if p.violation(x) == 0.0)


def test_a_cardinality_constrained_programme_is_a_selection_problem(rng):
    p = programme(rng)
    problem = p.selection()
    assert solve(problem).value + 0.5 == pytest.approx(least(p, 6), rel=1e-9)


def test_pools_anywhere_scaled_rows_and_fixed_variables(rng):
    A = np.array([[2.0, 0, 2, 0, 2, 1], [0, -1, 0, -1, 0, 0.5]])
    limits = np.array([3.0, -0.5])  # with x5 = 1: two of 0, 2, 4 less one half... : 2 k = 2, -k = -1
    lower = np.zeros(6)
    lower[5] = 1.0
    p = programme(rng, A=sp.csr_array(A), row_lower=limits, row_upper=limits, lower=lower)
    problem = p.selection()
    assert problem.n == 5
    rest = 0.5 * p.Q.toarray()[5, 5] + p.c[5] + p.constant
    assert solve(problem).value + rest == pytest.approx(least(p, 6), rel=1e-9)


def test_rows_and_limits(rng):
    p = programme(rng, quadratic={0: sp.csr_array(2 * np.eye(6))})
    x = np.array([1.0, 0, 0, 0, 0, 0])
    assert p.rows(x).tolist() == [2.0]
    assert p.violation(x) == 0.0
    assert p.violation(0.5 * x) == pytest.approx(1.25)
    assert p.violation(2.0 * x) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maximise": True}, "it maximises"),
        ({"quadratic": {0: sp.csr_array((6, 6))}}, "quadratic constraints"),
        ({"whole": np.arange(6) > 0}, "variable x1 is not binary"),
        ({"upper": np.full(6, 2.0)}, "variable x1 is not binary"),
        ({"row_lower": np.array([-np.inf])}, "row 1 does not count"),
        ({"A": sp.csr_array(np.arange(1.0, 7.0)[None])}, "row 1 does not count"),
        ({"row_lower": np.array([2.5]), "row_upper": np.array([2.5])}, "row 1 does not count"),
        ({"row_lower": np.array([7.0]), "row_upper": np.array([7.0])}, "asks for 7 of 6"),
        ({"A": sp.csr_array(np.array([[0.0, 1, 1, 1, 1, 1]]))}, "no row counts variable x1"),
        ({"upper": np.zeros(6)}, "all of its variables are fixed"),
        ({"Q": sp.csr_array(-np.eye(6))}, "hessian"),
    ],
)
def test_what_is_none_is_told(rng, changes, message):
    with pytest.raises(ValueError, match=f"programme 'p' is no subset-selection problem: .*{message}"):
        programme(rng, **changes).selection()
    overlapping = {
        "A": sp.csr_array(np.ones((2, 6))),
        "row_lower": np.full(2, 2.0),
        "row_upper": np.full(2, 2.0),
    }
    with pytest.raises(ValueError, match="row 2 shares variables"):
        programme(rng, **overlapping).selection()
