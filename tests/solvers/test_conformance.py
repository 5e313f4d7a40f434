"""One suite over every registered solver, every budget and every variant that it supports."""

import dataclasses
import time

import numpy as np
import pytest

from solvers import Budget, Progress, Status, SubsetProblem, available, get_solver, solve
from solvers.solve import check_support, registry

M, N = 3, 8
BUDGETS = {
    "per_row": Budget.per_row(4),
    "row_counts": Budget.per_row([1, 4, 6]),
    "n_of_m": Budget.n_of_m(2, 4),
    "columns": Budget.columns(3),
    "per_layer": Budget.per_layer(9),
}
CASES = {"plain": {}, "gradient": {"gradient": True}, "movable": {"movable": True}}
GAP = 1e-4


def make(budget, *, refit, stacked=False, gradient=False, movable=False, seed=0, m=M, n=N):
    rng = np.random.default_rng(seed)
    extra = 1 if movable else 0
    X = rng.normal(size=(m if stacked else 1, 4 * n, n + extra)) @ rng.normal(size=(n + extra, n + extra))
    H = np.einsum("rsi,rsj->rij", X, X) / X.shape[1] + 0.05 * np.eye(n + extra)
    W = rng.normal(size=(m, n + extra))
    G = 0.2 * rng.normal(size=W.shape) if gradient else None
    return SubsetProblem(
        W, H if stacked else H[0], budget, refit=refit, gradient=G, movable=[n] if movable else []
    )


def supported(name, problem):
    if not registry()[name].installed():
        pytest.skip(f"{name}: {', '.join(registry()[name].requires)} is not installed")
    try:
        check_support(get_solver(name), problem)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def optimum():
    known = {}

    def get(key, problem):
        if key not in known:
            known[key] = solve(problem, "brute-force").value
        return known[key]

    return get


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stacked", [False, True], ids=["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", registry())
def test_value_bound_and_budget(name, budget, refit, stacked, case, optimum):
    problem = make(BUDGETS[budget], refit=refit, stacked=stacked, **CASES[case])
    supported(name, problem)
    before = problem.W.copy()
    best = optimum((budget, refit, stacked, case), problem)
    solution = solve(problem, name, gap=GAP)
    scale = 1e-9 * problem.scale
    assert solution.value == pytest.approx(problem.value(solution.mask), rel=1e-12)
    assert problem.pools.violation(solution.mask[:, problem.prunable]) is None
    assert solution.bound <= best + scale
    assert best <= solution.value + scale
    np.testing.assert_array_equal(solution.weights[solution.mask], 0.0)
    np.testing.assert_array_equal(problem.W, before)
    if solution.status is Status.OPTIMAL:
        assert solution.gap <= GAP
        assert solution.value <= best + GAP * abs(solution.value) + scale
    if registry()[name].proves == "optimality":
        assert solution.status is Status.OPTIMAL
    if registry()[name].proves != "nothing":
        assert np.isfinite(solution.bound)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("name", registry())
def test_same_seed_same_answer(name, refit):
    problem = make(BUDGETS["per_row"], refit=refit, seed=3)
    supported(name, problem)
    first, second = (solve(problem, name, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.bound == second.bound


@pytest.mark.parametrize("budget", ["per_row", "columns", "per_layer"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("name", registry())
def test_warm_start_never_worsens(name, refit, budget, optimum):
    problem = make(BUDGETS[budget], refit=refit)
    supported(name, problem)
    best = solve(problem, "brute-force")
    warmed = solve(problem, name, warm_start=best.mask)
    assert warmed.value <= best.value + 1e-9 * problem.scale


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("name", registry())
def test_time_limit_returns_a_mask_in_time(name, refit):
    problem = make(Budget.per_row(20), refit=refit, m=2, n=40, seed=1)
    supported(name, problem)
    solve(make(Budget.per_row(2), refit=refit, m=1, n=4), name)  # compile and import first
    start = time.perf_counter()
    solution = solve(problem, name, time_limit=0.5)
    assert time.perf_counter() - start < 10.0
    assert solution.bound <= solution.value


@pytest.mark.parametrize("name", registry())
def test_callback_sees_intervals_and_can_stop(name):
    problem = make(BUDGETS["per_row"], refit=False)
    if name == "obs":
        problem = make(BUDGETS["per_row"], refit=True)
    supported(name, problem)
    seen: list[Progress] = []
    solve(problem, name, callback=seen.append)
    assert seen
    assert all(step.bounds.lower <= step.bounds.upper for step in seen)
    stopped = solve(problem, name, callback=lambda step: True)
    assert stopped.status in (Status.INTERRUPTED, Status.OPTIMAL, Status.FEASIBLE)
    assert problem.pools.violation(stopped.mask) is None


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_no_solver_beats_anothers_bound(refit):
    problem = make(Budget.per_row(6), refit=refit, n=12, seed=7)
    found = {}
    for name, facts in available().items():
        fits = ("joint" if refit else "selection") in facts["variants"]
        if facts["installed"] and fits and get_solver(name).refuses(problem) is None:
            found[name] = solve(problem, name, time_limit=10)
    assert len(found) > 8
    highest = max(found, key=lambda name: found[name].bound)
    lowest = min(found, key=lambda name: found[name].value)
    assert found[highest].bound <= found[lowest].value + 1e-9 * problem.scale, (highest, lowest)


def test_solvers_are_frozen_and_described():
    for name, cls in registry().items():
        assert dataclasses.is_dataclass(cls)
        assert cls.name == name
        assert cls.summary
        assert set(available()[name]) >= {"summary", "proves", "variants", "budgets", "installed"}
