"""No claim is wrong: solutions, told bounds, curves, shared budgets, both engines, certificates."""

import warnings

import numpy as np
import pytest

from tests.solvers.claims.held import Ledger, hold
from tests.solvers.claims.problems import random_problem
from tests.solvers.claims.rational import Exact, fraction, is_semidefinite, rational
from tests.solvers.exactly import exact_optimum, exact_row_values
from tests.solvers.oracles import all_masks

HOLDS = 25
"""Problems a test."""


def held(first, count):
    ledger = Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(first, first + count):
            hold(seed, ledger)
    assert ledger.counts["problems"] > 0.7 * count
    return ledger


@pytest.mark.parametrize("first", range(0, 100, HOLDS))
def test_no_claim_about_a_random_problem_is_wrong(first):
    ledger = held(first, HOLDS)
    assert not ledger.lines, "\n".join(ledger.lines)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, 500))
def test_no_claim_about_ten_thousand_random_problems_is_wrong(first):
    ledger = held(first, 500)
    assert not ledger.lines, "\n".join(ledger.lines)


@pytest.mark.parametrize("budget", ["per_row", "row_counts", "per_layer", "n_of_m", "columns"])
@pytest.mark.parametrize("seed", range(4))
def test_the_exact_optimum_is_that_of_every_mask_by_itself(seed, budget):
    problem = None
    while problem is None:
        try:
            problem = random_problem(seed, budget)
        except ValueError:
            pass
        seed += 100
        if problem is not None and sum(1 for _ in all_masks(problem)) > 80:
            problem = None
    exact = Exact(problem)
    for mask in all_masks(problem):
        if problem.hessian.__class__.__name__ == "BlockDiagonalHessian":
            break
        assert [fraction(exact.row_value(r, mask[r])) for r in range(problem.m)] == exact_row_values(
            problem, mask
        )
    least = min(fraction(exact.value(mask)) for mask in all_masks(problem))
    assert fraction(exact.optimum) == least
    if problem.hessian.__class__.__name__ != "BlockDiagonalHessian":
        assert least == exact_optimum(problem)[0]


def test_semidefinite_matrices_are_told_from_others():
    ones = [[rational(1.0)] * 3 for _ in range(3)]
    assert is_semidefinite(ones)
    ones[2][2] = rational(np.nextafter(1.0, 0.0))
    assert not is_semidefinite(ones)
