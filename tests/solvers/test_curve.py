"""Whole curves against brute force."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, checker, curve, solve
from solvers.form.reduction import reduce
from solvers.instances import save
from tests.solvers.oracles import gram, make_problem, optimum

CASES = [
    (refit, kind, gradient, movable)
    for refit, kind, gradient, movable in itertools.product(
        (True, False), ("shared", "stacked", "factor"), (False, True), ((), (0, 3))
    )
    if kind != "factor" or not movable
]


def best_rows(problem, k):
    """`[m]` least costs of pruning k entries of each row, by enumeration."""
    counted = SubsetProblem(
        problem.W, problem.hessian, Budget.per_row(k),
        refit=problem.refit, gradient=problem.G, movable=problem.movable,
    )  # fmt: skip
    return counted.row_values(solve(counted, "brute-force").mask)


def branching(m=3, n=18):
    """Rows that need a tree at most counts."""
    rng = np.random.default_rng(4)
    return SubsetProblem(rng.standard_normal((m, n)), gram(rng, n, 1e-2), Budget.per_layer(m * n // 2))


@pytest.fixture(scope="module")
def whole():
    return curve(branching())


@pytest.mark.parametrize(("refit", "kind", "gradient", "movable"), CASES)
def test_every_count_of_every_row_against_enumeration(refit, kind, gradient, movable, rng):
    n = 8 + len(movable)
    problem = make_problem(
        rng, Budget.per_row(2), m=3, n=n, refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    found = curve(problem, gap=1e-6)
    assert found.status is Status.OPTIMAL
    assert found.values.shape == found.lower.shape == (3, 9)
    assert found.proven.all()
    for k in range(9):
        best = best_rows(problem, k)
        assert (found.lower[:, k] <= best + 1e-12 * problem.scale).all()
        np.testing.assert_allclose(found.values[:, k], best, rtol=1e-6, atol=1e-12 * problem.scale)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_values_and_bounds_are_both_those_of_the_reduced_problem_and_its_constant(refit, rng):
    problem = make_problem(rng, Budget.per_row(2), m=3, n=9, refit=refit, gradient=True, movable=(4,))
    reduced = reduce(problem).problem
    found, plain = curve(problem, counts=[]), curve(reduced, counts=[])
    moved = found.values - plain.values
    np.testing.assert_allclose(moved, moved[:, :1] + np.zeros((3, 9)), atol=1e-10 * problem.scale)
    assert np.abs(moved[:, 0]).max() > 1e-3
    np.testing.assert_allclose(found.lower - plain.lower, moved, atol=1e-10 * problem.scale)
    assert not found.proven.all()


def test_masks_cost_what_the_values_say(rng):
    problem = make_problem(rng, Budget.per_layer(0), m=4, n=10, movable=(9,), gradient=True)
    found = curve(problem)
    counts = np.array([0, 3, 9, 5])
    mask = found.masks(counts)
    assert not mask[:, 9].any()
    counted = SubsetProblem(
        problem.W, problem.hessian, Budget.per_row(counts.tolist()), gradient=problem.G, movable=(9,)
    )
    np.testing.assert_allclose(counted.row_values(mask), found.values[np.arange(4), counts], rtol=1e-12)


def test_rows_that_need_a_tree_agree_with_the_solver(whole):
    problem = branching()
    assert whole.proven.all()
    assert whole.stats["nodes"] > 100
    assert (np.diff(whole.lower, axis=1) >= 0).all()
    for k in (5, 9, 13):
        counted = SubsetProblem(problem.W, problem.hessian, Budget.per_row(k))
        other = solve(counted, "branch-and-bound", gap=1e-5)
        assert other.value == pytest.approx(whole.values[:, k].sum(), rel=1e-4)
        assert whole.lower[:, k].sum() <= other.value
        assert other.bound <= whole.values[:, k].sum()


def test_only_some_counts_are_searched_when_asked(whole):
    some = curve(branching(), counts=[11, 12])
    assert some.status is Status.OPTIMAL
    assert some.proven[:, 11:13].all()
    assert not some.proven.all()
    assert some.stats["trees"] < whole.stats["trees"]
    assert (some.lower <= whole.values).all()
    assert (whole.lower <= some.values * (1.0 + 1e-12)).all()


def test_a_time_limit_leaves_valid_bounds_of_all_counts(whole):
    cut = curve(branching(), time_limit=1e-9)
    assert cut.status is Status.TIME_LIMIT
    assert (cut.lower <= whole.values).all()
    assert (cut.values * (1.0 + 1e-12) >= whole.lower).all()
    assert np.isfinite(cut.values).all()
    assert not cut.proven.all()


def test_the_callback_sees_the_interval_shrink_and_stops_the_search():
    seen = []
    curve(branching(), callback=lambda progress: seen.append(progress.bounds) and None)
    assert seen[0].lower < seen[-1].lower <= seen[-1].upper
    stopped = curve(branching(), callback=lambda progress: True)
    assert stopped.status is Status.INTERRUPTED


def test_the_same_again_gives_the_same(whole):
    again = curve(branching())
    assert np.array_equal(again.values, whole.values)
    assert np.array_equal(again.lower, whole.lower)
    assert again.stats["nodes"] == whole.stats["nodes"]


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("movable", [(), (1,)], ids=["fixed", "movable"])
def test_certificates_of_curves_hold(tmp_path, refit, movable):
    rng = np.random.default_rng(2)
    n = 12 + len(movable)
    problem = SubsetProblem(
        rng.standard_normal((2, n)), gram(rng, n, 1e-2), Budget.per_layer(13), refit=refit, movable=movable
    )
    found = curve(problem, certify=True)
    part = found.certificate.parts[0]
    np.testing.assert_allclose(part.curves, found.lower, rtol=1e-4, atol=1e-9 * problem.scale)
    found.certificate.save(tmp_path / "certificate")
    save(tmp_path / "problem.npz", problem)
    verdict = checker.verify(tmp_path / "certificate", tmp_path / "problem.npz")
    np.testing.assert_allclose(verdict.curves[0], part.curves, rtol=1e-10, atol=1e-13 * problem.scale)
    assert (verdict.curves[0] <= found.values + 1e-13 * problem.scale).all()
    best = solve(problem, "branch-and-bound", gap=1e-6)
    assert verdict.bound <= best.value
    assert verdict.gap <= 2e-4
    assert verdict.proofs >= 2 * 13


@pytest.mark.parametrize(("refit", "gradient"), [(True, False), (False, False), (False, True)])
def test_wide_rows_keep_greedy_masks_and_the_relaxations_bounds(refit, gradient, rng):
    n, k = 162, 81
    G = 0.3 * rng.standard_normal((1, n)) if gradient else None
    kind = {"refit": refit, "gradient": G}
    W, H = rng.standard_normal((1, n)), gram(rng, n, 100.0)
    found = curve(SubsetProblem(W, H, Budget.per_row(1), **kind))
    assert found.status is Status.FEASIBLE
    assert found.stats["trees"] == 0
    assert (found.lower <= found.values).all()
    value = SubsetProblem(W, H, Budget.per_row(k), **kind).value(found.masks(k))
    assert value == pytest.approx(found.values[0, k], rel=1e-6)
    assert found.lower[0, k] > 0.3 * found.values[0, k]


def test_no_columns_left_out_of_a_single_input():
    problem = SubsetProblem([[2.0], [0.0]], [[3.0]], Budget.per_row(0))
    found = curve(problem)
    assert found.values.tolist() == [[0.0, 6.0], [0.0, 0.0]]
    assert found.proven.all()


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (Budget.columns(1), {}, "columns"),
        (Budget.n_of_m(1, 2), {}, "n_of_m"),
        (Budget.per_row(1), {"certify": True}, "per_layer"),
        (Budget.per_row(1), {"counts": [7]}, "counts"),
        (Budget.per_row(1), {"time_limit": 0}, "time_limit"),
        (Budget.per_row(1), {"gap": -1}, "gap"),
    ],
)
def test_bad_requests_are_told_in_one_line(budget, options, message, rng):
    with pytest.raises(ValueError, match=message) as error:
        curve(make_problem(rng, budget), **options)
    assert "\n" not in str(error.value)


def test_masks_refuse_counts_out_of_range(rng):
    with pytest.raises(ValueError, match="between 0 and 6"):
        curve(make_problem(rng, Budget.per_row(1))).masks(7)


def test_allocating_over_the_curves_solves_the_layer(rng):
    problem = make_problem(rng, Budget.per_layer(7), m=2, n=7)
    found = curve(problem, certify=True, gap=1e-6)
    assert found.certificate.value == pytest.approx(optimum(problem), rel=1e-6)
