"""One suite over every registered solver and every budget, variant and curvature that it supports.

The cells are those that a solver says it supports: none is generated to be skipped. A solver whose package is
not installed has one skipped cell, which names the package.
"""

import itertools

import numpy as np
import pytest

from solvers import Budget, Progress, Status, SubsetProblem, available, get_solver, peers, solve
from solvers.solve import check_support
from tests.solvers.oracles import dense_value

M, N = 3, 8
BUDGETS = {
    "per_row": Budget.per_row(4),
    "row_counts": Budget.per_row([1, 4, 6]),
    "n_of_m": Budget.n_of_m(2, 4),
    "columns": Budget.columns(3),
    "units": Budget.columns(2, width=2),
    "per_layer": Budget.per_layer(9),
    "pools": Budget.pools(list("abbabbca"), {"a": 1, "b": 3, "c": 0}),
    "shared_pools": Budget.pools([1, 0, 1, 0, 0, 1, 0, 1], [1, 3], shared=True),
}
COUNTS = {  # numbers of pruned weights that a mask of the budget has, row by row or as it is counted
    "per_row": lambda mask: mask.sum(axis=1).tolist() == [4, 4, 4],
    "row_counts": lambda mask: mask.sum(axis=1).tolist() == [1, 4, 6],
    "n_of_m": lambda mask: (mask.reshape(M, 2, 4).sum(axis=2) == 2).all(),
    "columns": lambda mask: (mask == mask[0]).all() and mask[0].sum() == 3,
    "units": lambda mask: (
        (mask == mask[0]).all() and sorted(mask[0].reshape(4, 2).sum(axis=1)) == [0, 0, 2, 2]
    ),
    "per_layer": lambda mask: mask.sum() == 9,
    "pools": lambda mask: all(
        [(~row[[0, 3, 7]]).sum(), (~row[[1, 2, 4, 5]]).sum(), (~row[[6]]).sum()] == [1, 3, 0] for row in mask
    ),
    "shared_pools": lambda mask: (
        (mask == mask[0]).all() and mask[0][[1, 3, 4, 6]].sum() == 3 and mask[0][[0, 2, 5, 7]].sum() == 1
    ),
}
POOLED = {("pools", "joint", "shared", "movable"), ("shared_pools", "selection", "stacked", "plain")}
"""Of budgets with a number for every pool, what is not left to the slow tests."""
CASES = {"plain": {}, "gradient": {"gradient": True}, "movable": {"movable": True}}
VARIANTS = {"joint": True, "selection": False}
CURVATURES = {"shared": False, "stacked": True}
SOLVERS = available()
PEERS = {peer.name for peer in peers.SOLVERS}
"""Solvers in environments of their own, whose cells are left to the slow tests."""
PROVERS = [name for name, facts in SOLVERS.items() if facts["proves"] == "optimality"]
GAP = 1e-4


def make(budget, variant, curvature="shared", case="plain", seed=0, m=M, n=N):
    rng = np.random.default_rng(seed)
    stacked, movable = CURVATURES[curvature], case == "movable"
    extra = 1 if movable else 0
    X = rng.normal(size=(m if stacked else 1, 4 * n, n + extra)) @ rng.normal(size=(n + extra, n + extra))
    H = np.einsum("rsi,rsj->rij", X, X) / X.shape[1] + 0.05 * np.eye(n + extra)
    W = rng.normal(size=(m, n + extra))
    return SubsetProblem(
        W, H if stacked else H[0], budget, refit=VARIANTS[variant],
        gradient=0.2 * rng.normal(size=W.shape) if case == "gradient" else None,
        movable=[n] if movable else [],
    )  # fmt: skip


def large(variant):
    return make(Budget.per_row(20), variant, m=2, n=40, seed=1)


def supports(name, problem):
    try:
        check_support(get_solver(name), problem)
    except ValueError:
        return False
    return True


def cells(problem, *axes, names=SOLVERS):
    """A parameter set for each installed solver and point of the axes whose `problem` it supports."""
    points = {axis: problem(*axis) for axis in itertools.product(*axes)}
    return [
        pytest.param(name, *axis, id="-".join((name, *axis)), marks=pytest.mark.slow if name in PEERS else ())
        for name in names
        if SOLVERS[name]["installed"]
        for axis, posed in points.items()
        if supports(name, posed)
    ]


def absent(*point):
    """A skipped cell for each solver whose package is not installed."""
    return [
        pytest.param(name, *point, id=name, marks=pytest.mark.skip(reason=f"{name}: {facts['install']}"))
        for name, facts in SOLVERS.items()
        if not facts["installed"]
    ]


def posed(budget, variant, curvature="shared", case="plain"):
    return make(BUDGETS[budget], variant, curvature, case)


@pytest.fixture(scope="module")
def optimum():
    known = {}

    def get(*point):
        if point not in known:
            known[point] = solve(posed(*point), "brute-force")
        return known[point]

    return get


def same(one, other):
    return one.status is other.status and one.bound == other.bound and np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("name", "budget", "variant", "curvature", "case"),
    cells(posed, [b for b in BUDGETS if "pools" not in b], VARIANTS, CURVATURES, CASES)
    + [
        pytest.param(
            *cell.values,
            id=cell.id,
            marks=cell.marks if cell.values[1:] in POOLED else pytest.mark.slow,
        )
        for cell in cells(posed, ["pools", "shared_pools"], VARIANTS, CURVATURES, CASES)
    ]
    + absent("per_row", "joint", "shared", "plain"),
)
def test_value_bound_and_budget(name, budget, variant, curvature, case, optimum):
    problem = posed(budget, variant, curvature, case)
    before = problem.W.copy()
    best = optimum(budget, variant, curvature, case).value
    solution = solve(problem, name, gap=GAP)
    rounding = 1e-9 * problem.scale
    assert solution.value == pytest.approx(dense_value(problem, solution.mask), rel=1e-8, abs=rounding)
    assert COUNTS[budget](solution.mask[:, :N])
    assert not solution.mask[:, N:].any()
    assert solution.bound <= best + rounding
    assert best <= solution.value + rounding
    np.testing.assert_array_equal(solution.weights[solution.mask], 0.0)
    np.testing.assert_array_equal(problem.W, before)
    if solution.status is Status.OPTIMAL:
        assert solution.value <= best + GAP * abs(solution.value) + rounding
    if name in PROVERS:
        assert solution.status is Status.OPTIMAL
    if SOLVERS[name]["proves"] != "nothing":
        assert np.isfinite(solution.bound)


@pytest.mark.parametrize(("name", "variant"), cells(lambda v: posed("per_row", v), VARIANTS))
def test_same_seed_same_answer(name, variant):
    problem = make(BUDGETS["per_row"], variant, seed=3)
    first, second = (solve(problem, name, seed=5) for _ in range(2))
    assert same(first, second)


@pytest.mark.parametrize(
    ("name", "budget", "variant"), cells(posed, ["per_row", "columns", "units", "per_layer"], VARIANTS)
)
def test_warm_start_never_worsens(name, budget, variant, optimum):
    problem, best = posed(budget, variant), optimum(budget, variant)
    warmed = solve(problem, name, warm_start=best.mask)
    assert warmed.value <= best.value + 1e-9 * problem.scale


@pytest.mark.parametrize(("name", "variant"), cells(large, VARIANTS))
def test_a_time_limit_that_is_over_stops_what_is_not_finished(name, variant):
    problem = large(variant)
    solution = solve(problem, name, time_limit=1e-9)
    assert (solution.mask.sum(axis=1) == 20).all()
    if name in PROVERS or solution.status is Status.TIME_LIMIT:
        assert solution.status is Status.TIME_LIMIT
    else:  # one pass, which is over before it could be stopped
        assert same(solution, solve(problem, name))


@pytest.mark.parametrize(("name", "variant"), cells(large, VARIANTS, names=PROVERS))
def test_a_proof_that_is_cut_short_is_a_bound(name, variant):
    problem = large(variant)
    solution = solve(problem, name, time_limit=0.1, gap=GAP)
    rounding = 1e-9 * problem.scale
    assert solution.status is (Status.OPTIMAL if solution.gap <= GAP else Status.TIME_LIMIT)
    assert solution.bound <= solve(problem, "tabu").value + rounding
    assert solution.value == pytest.approx(dense_value(problem, solution.mask), rel=1e-8, abs=rounding)


@pytest.mark.parametrize(("name", "variant"), cells(lambda v: posed("per_row", v), VARIANTS))
def test_a_callback_sees_intervals_and_can_stop(name, variant, optimum):
    problem, best = posed("per_row", variant), optimum("per_row", variant).value
    seen: list[Progress] = []
    whole = solve(problem, name, callback=seen.append)
    assert seen
    rounding = 1e-6 * problem.scale
    assert all(step.bounds.lower - rounding <= best <= step.bounds.upper + rounding for step in seen)
    stopped = solve(problem, name, callback=lambda step: True)
    assert COUNTS["per_row"](stopped.mask)
    if stopped.status is not Status.INTERRUPTED:  # told when it had finished
        assert same(stopped, whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_solver_beats_anothers_bound(variant):
    problem = make(Budget.per_row(6), variant, n=12, seed=7)
    found = {
        name: solve(problem, name)
        for name, facts in SOLVERS.items()
        if facts["installed"] and name not in PEERS and supports(name, problem)
    }
    assert len(found) > 8
    highest = max(found, key=lambda name: found[name].bound)
    lowest = min(found, key=lambda name: found[name].value)
    assert found[highest].bound <= found[lowest].value + 1e-9 * problem.scale, (highest, lowest)


@pytest.mark.parametrize("name", [name for name, facts in SOLVERS.items() if facts["installed"]])
def test_solvers_are_frozen_and_described(name):
    solver = get_solver(name)
    assert solver.name == name
    assert solver.summary
    with pytest.raises(AttributeError, match="cannot assign"):
        solver.anything = 1
    assert set(SOLVERS[name]) >= {"summary", "proves", "variants", "budgets", "installed"}


def test_what_comes_with_the_package_is_here():
    core = {name for name, facts in SOLVERS.items() if facts["install"] is None}
    assert core >= {"auto", "brute-force", "branch-and-bound", "cp-sat", "outer-approximation", "relaxation"}
    assert core >= {"tabu", "portfolio"}
    assert all(SOLVERS[name]["installed"] for name in core)
