"""Independent pieces of a problem, their trivial bounds, and what a claim above a value is worth."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.trivial import trivial_bound
from solvers.form.parts import Part, independent
from tests.solvers.oracles import BUDGETS, all_masks, make_problem, optimum


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_pieces_add_up_to_the_whole(rng, budget, refit, kind):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=not refit)
    pieces = independent(problem)
    assert len(pieces) == (1 if budget in ("per_layer", "columns") else problem.m)
    for mask in list(all_masks(problem))[::7]:
        total = sum(piece.value(mask[rows]) for rows, piece in pieces)
        assert total == pytest.approx(problem.value(mask), rel=1e-12, abs=1e-12 * problem.scale)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_trivial_bound_is_below_every_mask(rng, budget, refit, gradient):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=gradient and not refit)
    bound = trivial_bound(problem)
    assert np.isfinite(bound)
    assert bound <= optimum(problem)


def test_trivial_bound_needs_no_curvature(rng):
    problem = SubsetProblem(
        [[1.0, 2.0, 3.0]], np.zeros((3, 3)), Budget.per_row(2), refit=False, gradient=[[1, 1, 1]]
    )
    assert trivial_bound(problem) == pytest.approx(-5.0, rel=1e-9)
    assert trivial_bound(problem) <= -5.0


@pytest.mark.parametrize("prune", [0, 6])
def test_trivial_bound_is_the_value_of_an_only_mask(rng, prune):
    problem = make_problem(rng, Budget.per_row(prune), refit=False, gradient=True)
    assert trivial_bound(problem) == pytest.approx(optimum(problem), rel=1e-9)


def part(rng, **given):
    problem = make_problem(rng, Budget.per_row(3), m=1)
    mask = next(all_masks(problem))
    return Part(problem, slice(0, 1), mask, problem.value(mask), **{"floor": 0.0, **given})


def test_found_keeps_the_better_mask(rng):
    it = part(rng)
    masks = sorted(all_masks(it.problem), key=it.problem.value)
    assert it.found(masks[3])
    assert not it.found(masks[5])
    assert it.value == it.problem.value(masks[3])
    np.testing.assert_array_equal(it.mask, masks[3])


def test_a_claim_above_the_value_is_lowered_by_twice_its_error(rng):
    it = part(rng)
    it.claim = 1.25 * it.value
    assert it.excess == pytest.approx(0.25 * it.value)
    assert it.bound == pytest.approx(0.75 * it.value)
    assert not it.met(0.2)
    assert it.met(0.26)
    it.floor = 0.9 * it.value
    assert it.bound == it.floor


def test_an_attempt_must_promise_more_than_the_last(rng):
    it = part(rng)
    assert it.promise(1e-4, 1.0)
    assert not it.promise(1e-4, 1.5)
    assert it.promise(1e-4, 2.5)
    assert not it.promise(0.95e-4, 2.5)
    assert it.promise(1e-5, 2.5)
    assert it.attempts == 3
