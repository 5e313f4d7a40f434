import pytest

from solvers import Budget, Status, solve
from solvers.exact.brute_force import BruteForce
from tests.solvers.oracles import BUDGETS, all_masks, dense_value, make_problem


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_it_finds_the_least_of_all_masks(budget, refit, kind, rng):
    problem = make_problem(rng, BUDGETS[budget], n=6, refit=refit, kind=kind, gradient=True, movable=())
    costs = {mask.tobytes(): dense_value(problem, mask) for mask in all_masks(problem)}
    found = solve(problem, "brute-force")
    assert found.status is Status.OPTIMAL
    assert found.mask.tobytes() == min(costs, key=costs.get)
    assert found.value == pytest.approx(min(costs.values()), rel=1e-8, abs=1e-10)
    assert found.gap < 1e-9


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (Budget.per_row(2), 3 * 15),
        (Budget.per_row([0, 3, 6]), 1 + 20 + 1),
        (Budget.n_of_m(1, 3), 3 * 3 * 3),
        (Budget.columns(2), 15),
        (Budget.per_layer(7), 3 * 2**6),
    ],
)
def test_masks_are_counted_and_limited(budget, count, rng):
    problem = make_problem(rng, budget, m=3)
    assert solve(problem, BruteForce(limit=count)).stats == {"masks": count}
    assert BruteForce(limit=count).refuses(problem) is None
    assert BruteForce(limit=count - 1).refuses(problem) == (
        f"it has {count} masks, more than the limit of {count - 1}"
    )


@pytest.mark.parametrize("budget", ["per_row", "columns", "per_layer"])
def test_a_time_limit_leaves_a_mask_of_the_budget_and_no_bound_but_zero(budget, rng):
    problem = make_problem(rng, BUDGETS[budget])
    found = solve(problem, "brute-force", time_limit=1e-9)
    assert found.status is Status.TIME_LIMIT
    assert found.bound == 0.0
    assert problem.pools.violation(found.mask) is None


def test_a_long_enumeration_stops_in_time(rng):
    problem = make_problem(rng, Budget.per_row(10), m=4, n=20)
    found = solve(problem, "brute-force", time_limit=0.2)
    assert found.status is Status.TIME_LIMIT
