"""Several layers under one budget."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, checker, curve, solve, solve_together
from solvers.allocation import allocation_value
from solvers.instances import save
from tests.solvers.oracles import gram, make_problem


def layers(rng, prune, *, refit=True, gradient=False, movable=(), sizes=((2, 4), (1, 6))):
    """Layers of different shapes, with a `per_layer` budget each."""
    return [
        make_problem(
            rng, Budget.per_layer(k), m=m, n=n + len(movable), refit=refit, gradient=gradient, movable=movable
        )
        for k, (m, n) in zip(prune, sizes, strict=True)
    ]


def best_of_all(problems):
    """The least sum of values over all masks that prune as many together, by enumeration of row counts."""
    total = sum(int(problem.pools.prune[0]) for problem in problems)
    rows = []
    for problem in problems:
        n = len(problem.prunable)
        values = np.empty((problem.m, n + 1))
        for k in range(n + 1):
            counted = SubsetProblem(
                problem.W, problem.hessian, Budget.per_row(k),
                refit=problem.refit, gradient=problem.G, movable=problem.movable,
            )  # fmt: skip
            values[:, k] = counted.row_values(solve(counted, "brute-force").mask)
        rows += list(values)
    return min(
        sum(row[k] for row, k in zip(rows, counts, strict=True))
        for counts in itertools.product(*(range(len(row)) for row in rows))
        if sum(counts) == total
    )


@pytest.mark.parametrize("movable", [(), (1,)], ids=["fixed", "movable"])
@pytest.mark.parametrize(("refit", "gradient"), [(True, False), (True, True), (False, False), (False, True)])
@pytest.mark.parametrize("prune", [(4, 3), (0, 0), (8, 6), (6, 5)])
def test_layers_that_share_a_budget_against_enumeration(prune, refit, gradient, movable, rng):
    problems = layers(rng, prune, refit=refit, gradient=gradient, movable=movable)
    found = solve_together(problems, gap=1e-6)
    best = best_of_all(problems)
    scale = sum(problem.scale for problem in problems)
    assert sum(int(mask.sum()) for mask in found.masks) == sum(prune)
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-12 * scale)
    assert found.bound <= best + 1e-12 * scale
    assert found.status is Status.OPTIMAL or found.value - found.bound < 1e-10 * scale
    for problem, mask, weights, value in zip(problems, found.masks, found.weights, found.values, strict=True):
        counted = SubsetProblem(
            problem.W, problem.hessian, Budget.per_layer(int(mask.sum())),
            refit=refit, gradient=problem.G, movable=movable,
        )  # fmt: skip
        assert counted.value(mask) == value
        assert not weights[mask].any()


def test_one_layer_is_solved_as_the_solver_does(rng):
    problem = make_problem(rng, Budget.per_layer(20), m=4, n=10)
    found, other = solve_together([problem], gap=1e-6), solve(problem, "branch-and-bound", gap=1e-6)
    assert found.value == pytest.approx(other.value, rel=1e-6)
    assert found.gap <= 1e-6


def test_sharing_never_costs_more_than_budgets_of_their_own(rng):
    problems = layers(rng, (10, 10), sizes=((2, 10), (2, 10)))
    apart = sum(solve(problem, "branch-and-bound").value for problem in problems)
    assert solve_together(problems).value <= apart * (1 + 1e-4)


def test_rows_too_wide_to_search_keep_valid_bounds(rng):
    problems = layers(rng, (12, 8), sizes=((2, 12), (2, 8)))
    whole, part, none = (solve_together(problems, widest=widest) for widest in (None, 8, 1))
    assert whole.status is Status.OPTIMAL
    assert none.bound <= part.bound <= whole.value
    assert whole.bound <= part.value
    assert part.status is Status.FEASIBLE
    assert part.value == pytest.approx(whole.value, rel=1e-2)
    assert part.bound > 0.0
    curves = [curve(problem, gap=1e-6) for problem in problems]
    mixed = [*(c for c in curves[0].lower), *(c for c in curves[1].lower)]
    assert part.bound <= allocation_value(mixed, 20) * (1 + 1e-6)


def test_a_shared_certificate_holds_and_its_gap_is_the_networks(tmp_path, rng):
    problems = layers(rng, (13, 9), movable=(0,), sizes=((3, 9), (2, 11)))
    found = solve_together(problems, certify=True)
    found.certificate.save(tmp_path / "certificate")
    paths = [tmp_path / f"{i}.npz" for i in range(2)]
    for path, problem in zip(paths, problems, strict=True):
        save(path, problem)
    verdict = checker.verify(tmp_path / "certificate", *paths)
    assert verdict.gap <= 2e-4
    assert verdict.bound <= best_value(problems)
    assert verdict.low <= found.value * (1 + 1e-12)
    with pytest.raises(checker.Refuted):
        checker.verify(tmp_path / "certificate", *paths[::-1])


def best_value(problems):
    return solve_together(problems, gap=1e-7).value


def test_limits_and_the_callback_leave_the_best_found(rng):
    problems = layers(rng, (25, 35), sizes=((3, 14), (4, 16)))
    whole = solve_together(problems)
    for cut in (
        solve_together(problems, time_limit=1e-9),
        solve_together(problems, callback=lambda progress: True),
    ):
        assert cut.status in (Status.TIME_LIMIT, Status.INTERRUPTED)
        assert cut.bound <= whole.value
        assert whole.bound <= cut.value
    seen = []
    solve_together(problems, callback=lambda progress: seen.append(progress.bounds) and None)
    assert [bounds.lower for bounds in seen] == sorted(bounds.lower for bounds in seen)


def test_rows_of_no_weight_go_first():
    rng = np.random.default_rng(1)
    dead = SubsetProblem(np.zeros((2, 5)), gram(rng, 5), Budget.per_layer(5))
    live = SubsetProblem(rng.standard_normal((2, 5)), gram(rng, 5), Budget.per_layer(5))
    found = solve_together([dead, live])
    assert found.masks[0].all()
    assert not found.masks[1].any()
    assert found.value == found.gap == 0.0


@pytest.mark.parametrize(
    ("problems", "options", "message"),
    [
        ([], {}, "empty"),
        ([Budget.per_layer(1), Budget.per_row(1)], {}, "problem 1 has a per_row"),
        ([Budget.per_layer(1)], {"time_limit": -1}, "time_limit"),
        ([Budget.per_layer(1)], {"gap": float("inf")}, "gap"),
    ],
)
def test_bad_requests_are_told_in_one_line(problems, options, message, rng):
    with pytest.raises(ValueError, match=message) as error:
        solve_together([make_problem(rng, budget) for budget in problems], **options)
    assert "\n" not in str(error.value)
