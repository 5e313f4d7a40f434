"""Near-optimal masks against the values of all masks."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, near_optimal
from tests.solvers.oracles import BUDGETS, all_masks, dense_value, gram, make_problem

POOLS = {
    "pools": Budget.pools([0, 1, 1, 0, 1, 0], [1, 2]),
    "shared_pools": Budget.pools([0, 1, 1, 0, 1, 1], [1, 2], shared=True),
}
ALONE = {name: budget for name, budget in (BUDGETS | POOLS).items() if name != "per_layer"}
CELLS = [
    *itertools.product(ALONE, [True, False], ["shared"]),
    *itertools.product(["per_row", "columns"], [True, False], ["stacked", "factor"]),
]


def priced(problem):
    """Every mask, as bytes, with its value in dense algebra."""
    return {mask.tobytes(): dense_value(problem, mask) for mask in all_masks(problem)}


@pytest.mark.parametrize(("budget", "refit", "kind"), CELLS)
def test_all_masks_and_no_others(rng, budget, refit, kind):
    gradient, movable = kind == "stacked", [6] if kind == "factor" else []
    problem = make_problem(
        rng, ALONE[budget], n=6 + len(movable), refit=refit, kind=kind, gradient=gradient, movable=movable
    )
    values = priced(problem)
    ranked = sorted(values.values())
    middle = len(ranked) // 3
    room = 0.5 * (ranked[middle] + ranked[middle + 1]) - ranked[0]
    found = near_optimal(problem, absolute=room)
    assert found.complete
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(ranked[0], rel=1e-8)
    listed = list(found.combinations())
    assert len(listed) == middle + 1
    assert {mask.tobytes() for _, mask in listed} == {m for m, v in values.items() if v <= ranked[middle]}
    told = [value for value, _ in listed]
    assert told == sorted(told)
    np.testing.assert_allclose(told, ranked[: middle + 1], rtol=1e-7)
    assert [value for value, _ in found.combinations(2)] == told[:2]
    relative = near_optimal(problem, room / abs(ranked[0]))
    assert [len(row.masks) for row in relative.rows] == [len(row.masks) for row in found.rows]


def test_rows_have_the_masks_that_occur_and_say_what_all_keep(rng):
    problem = make_problem(rng, Budget.per_row(3))
    found = near_optimal(problem, absolute=0.9)
    values = priced(problem)
    whole = [np.frombuffer(mask, bool).reshape(2, 6) for mask, v in values.items() if v <= found.value + 0.9]
    assert len(whole) > 3
    for r, row in enumerate(found.rows):
        assert {mask.tobytes() for mask in row.masks} == {mask[r].tobytes() for mask in whole}
        assert (np.diff(row.values) >= 0).all()
        np.testing.assert_allclose(row.kept, (~row.masks).mean(axis=0))
        one = problem.row(r)
        others = [one.value(mask) for mask in all_masks(one) if mask.tobytes() not in map(bytes, row.masks)]
        assert min(others) >= row.beyond == row.values[0] + 0.9
    assert found.epsilon == 0.9


def test_a_wide_row_against_its_count_of_swaps(rng):
    """Independent inputs cost what they cost alone, so that the near-optimal masks can be counted."""
    cost = np.sort(rng.random(40)) + np.arange(40)
    problem = SubsetProblem(np.ones((1, 40)), np.diag(2.0 * cost), Budget.per_row(20))
    found = near_optimal(problem, absolute=7.0)
    count = sum(
        1
        for swaps in range(4)
        for go in itertools.combinations(range(13, 20), swaps)
        for come in itertools.combinations(range(20, 28), swaps)
        if cost[list(come)].sum() - cost[list(go)].sum() <= 7.0
    )
    assert found.complete
    assert len(found.rows[0].masks) == count > 20


def test_ties_are_equals():
    problem = SubsetProblem(np.ones((1, 6)), np.eye(6), Budget.per_row(3))
    found = near_optimal(problem, 0.0)
    assert found.complete
    assert len(found.rows[0].masks) == 20


@pytest.mark.parametrize("refit", [True, False])
def test_nothing_costs_anything(refit):
    problem = SubsetProblem(np.zeros((2, 4)), np.eye(4), Budget.per_row(2), refit=refit)
    found = near_optimal(problem)
    assert found.complete
    assert [len(row.masks) for row in found.rows] == [6, 6]


def test_an_optimum_of_zero_and_budgets_without_a_choice(rng):
    H = gram(rng, 5)
    found = near_optimal(SubsetProblem([[1.0, 0.0, 0.0, 2.0, 0.0]], H, Budget.per_row(2)), 0.5)
    assert (found.value, found.complete, len(found.rows[0].masks)) == (0.0, True, 3)
    for prune in (0, 5):
        found = near_optimal(SubsetProblem(np.ones((1, 5)), H, Budget.per_row(prune)), 0.5)
        assert (found.complete, found.rows[0].masks.sum()) == (True, prune)


def test_limits_leave_what_was_found(rng):
    problem = make_problem(rng, Budget.per_row(12), m=1, n=24)
    cut = near_optimal(problem, 0.5, limit=3)
    assert not cut.complete
    assert "not all of them" in repr(cut)
    assert len(cut.rows[0].masks) == 3
    assert cut.rows[0].beyond <= near_optimal(problem, 0.5).rows[0].values[3]
    stopped = near_optimal(problem, 0.5, callback=lambda progress: True)
    assert (stopped.complete, stopped.status) == (False, Status.INTERRUPTED)
    late = near_optimal(problem, 0.5, time_limit=1e-9)
    assert (late.complete, late.status) == (False, Status.TIME_LIMIT)
    assert list(late.combinations()) or not len(late.rows[0].masks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be a finite number >= 0, got -0.1"),
        ({"absolute": float("nan")}, "absolute must be a finite number >= 0, got nan"),
        ({"epsilon": 0.1, "absolute": 1.0}, r"give epsilon \(0.1\) or absolute \(1.0\), not both"),
        ({"limit": 0}, "limit must be a whole number of masks >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        near_optimal(make_problem(rng, Budget.per_row(2)), **arguments)


def test_budgets_without_a_tree_are_refused(rng):
    with pytest.raises(ValueError, match="'per_layer' ties all rows together"):
        near_optimal(make_problem(rng, Budget.per_layer(4)))
    with pytest.raises(ValueError, match="columns in units has no tree"):
        near_optimal(make_problem(rng, Budget.columns(1, width=2)))
    with pytest.raises(ValueError, match=r"rows have 161 inputs; .* of up to 160"):
        near_optimal(SubsetProblem(np.ones((1, 161)), np.eye(161), Budget.per_row(2)))
