import itertools
from fractions import Fraction

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, Budget, FactorHessian, SubsetProblem
from solvers.form.reduction import reduce
from solvers.hessian import factor
from tests.solvers.exactly import exact_row_values
from tests.solvers.oracles import BUDGETS, all_masks, dense_value, gram, make_problem

M, N = 2, 6
MOVABLE = {"none": (), "one": (2,), "two": (0, 7)}


@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "gradient"])
@pytest.mark.parametrize("movable", MOVABLE)
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_values_agree_and_masks_go_both_ways(budget, refit, kind, movable, gradient, rng):
    columns = MOVABLE[movable]
    problem = make_problem(
        rng, BUDGETS[budget], n=N + len(columns), refit=refit, kind=kind, gradient=gradient, movable=columns
    )
    reduction = reduce(problem)
    small = reduction.problem
    assert len(small.movable) == 0
    assert small.G is None or not refit
    assert small.W.shape == (M, N)
    assert small.budget == problem.budget
    masks = list(all_masks(small))
    for i in rng.choice(len(masks), 5):
        mask = masks[i]
        lifted = reduction.lift(mask)
        np.testing.assert_array_equal(lifted[:, problem.prunable], mask)
        np.testing.assert_array_equal(reduction.lower(lifted), mask)
        value = small.value(mask) + reduction.offset
        assert problem.value(lifted) == pytest.approx(value, abs=reduction.margin + 1e-14)
        assert dense_value(problem, lifted) == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_nothing_to_take_out_leaves_the_problem_itself(refit, rng):
    problem = make_problem(rng, Budget.per_row(2), refit=refit, gradient=not refit)
    reduction = reduce(problem)
    assert reduction.problem is problem
    assert (reduction.offset, reduction.margin) == (0.0, 0.0)
    mask = problem.pools.smallest(problem.W**2)
    assert reduction.lift(mask) is mask


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_the_margin_grows_with_the_condition_of_what_is_inverted(refit, rng):
    """An ill-conditioned bias block: the values drift apart, but by less than the margin says."""
    margins = []
    for condition in (1e2, 1e10):
        n, columns = N + 2, (0, 7)
        basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
        H = (basis * np.geomspace(1.0, 1.0 / condition, n)) @ basis.T
        problem = SubsetProblem(
            rng.standard_normal((M, n)),
            0.5 * (H + H.T),
            Budget.per_row(3),
            refit=refit,
            gradient=rng.standard_normal((M, n)),
            movable=columns,
        )
        reduction = reduce(problem)
        margins.append(reduction.margin / problem.scale)
        for mask in list(all_masks(reduction.problem))[::40]:
            apart = problem.value(reduction.lift(mask)) - reduction.problem.value(mask) - reduction.offset
            assert abs(apart) <= reduction.margin
    assert 0 < margins[0] < margins[1]


def test_the_inputs_stay_as_they_are(rng):
    problem = make_problem(rng, Budget.per_row(2), gradient=True, movable=[1])
    W, G, H = problem.W.copy(), problem.G.copy(), problem.hessian.dense(0).copy()
    reduce(problem)
    np.testing.assert_array_equal(problem.W, W)
    np.testing.assert_array_equal(problem.G, G)
    np.testing.assert_array_equal(problem.hessian.dense(0), H)


def test_a_schur_complement_is_the_inverse_of_a_block_of_the_inverse(rng):
    H = gram(rng, N)
    problem = SubsetProblem(rng.standard_normal((M, N)), H, Budget.per_row(2), movable=[1, 3])
    kept = np.array([0, 2, 4, 5])
    expected = np.linalg.inv(np.linalg.inv(H)[np.ix_(kept, kept)])
    np.testing.assert_allclose(reduce(problem).problem.hessian.dense(0), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "gradient"])
@pytest.mark.parametrize("movable", [(), (2, 7)], ids=["none", "two"])
@pytest.mark.parametrize("kind", ["factor", "blocks"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_wide_factor_stays_a_factor(budget, refit, kind, movable, gradient, rng, monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 2)
    n = N + len(movable)
    parts = [FactorHessian(rng.standard_normal((2, k)), c) for k, c in ((3, 0.3), (n - 3, 0.2))]
    problem = SubsetProblem(
        rng.standard_normal((M, n)),
        FactorHessian(rng.standard_normal((3, n)), 0.2) if kind == "factor" else BlockDiagonalHessian(parts),
        BUDGETS[budget],
        refit=refit,
        gradient=0.3 * rng.standard_normal((M, n)) if gradient else None,
        movable=movable,
    )
    reduction = reduce(problem)
    small = reduction.problem
    assert isinstance(small.hessian, type(problem.hessian))
    assert (small.W.shape, small.G is None) == ((M, N), refit or not gradient)
    values = []
    for mask in itertools.islice(all_masks(small), 0, None, 7):
        values.append(small.value(mask) + reduction.offset)
        exact = dense_value(problem, reduction.lift(mask))
        assert exact == pytest.approx(values[-1], rel=1e-11, abs=1e-11)
        assert abs(problem.value(reduction.lift(mask)) - values[-1]) <= reduction.margin
    changed = bool(len(movable) or (refit and gradient))
    assert (reduction.margin > 0.0) == changed
    assert reduction.margin < 1e-10 * max(map(abs, values))


def test_a_singular_corner_of_a_factor_is_refused(monkeypatch):
    monkeypatch.setattr(factor, "WIDE", 2)
    X = np.ones((2, 6))
    with pytest.raises(ValueError, match="singular"):
        FactorHessian(X).eliminate(np.array([0, 1]))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_a_selection_whose_columns_repeat_a_movable_one(gradient, kind, rng):
    """What is left of the twin is rounding, semidefinite or not: it is lifted, and the margin says so."""
    lifted = 0
    for _ in range(30):
        X = np.outer(rng.standard_normal(7), rng.standard_normal(4))
        H = X.T @ X / 7
        problem = SubsetProblem(
            rng.standard_normal((M, 4)), H if kind == "shared" else np.stack([H, 2.0 * H]), Budget.per_row(1),
            refit=False, gradient=rng.standard_normal((M, 4)) if gradient else None, movable=[0],
        )  # fmt: skip
        reduction = reduce(problem)
        lifted += reduction.problem.hessian.diagonal().min() > 1e-14 * H.diagonal().min()
        for mask in all_masks(problem):
            right = float(sum(exact_row_values(problem, mask)))
            value = reduction.problem.value(reduction.lower(mask)) + reduction.offset
            assert value == pytest.approx(right, rel=1e-12, abs=reduction.margin)
    assert lifted > 0


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("condition", [1e3, 1e8, 1e12])
def test_the_margin_holds_what_rounding_moves(refit, condition, rng):
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    H = (basis * np.geomspace(1.0, 1.0 / condition, 6)) @ basis.T
    problem = SubsetProblem(
        rng.standard_normal((M, 6)), 0.5 * (H + H.T), Budget.per_row(2), refit=refit,
        gradient=rng.standard_normal((M, 6)), movable=[4],
    )  # fmt: skip
    reduction = reduce(problem)
    for mask in list(all_masks(problem))[::7]:
        right = sum(exact_row_values(problem, mask))
        value = sum(exact_row_values(reduction.problem, reduction.lower(mask))) + Fraction(reduction.offset)
        assert abs(value - right) <= Fraction(reduction.margin)
