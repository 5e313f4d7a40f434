import dataclasses
import math

import numpy as np
import pytest

from solvers import Bounds, Budget, Solution, Status
from solvers.solution import CLAMP, Progress
from tests.solvers.oracles import make_problem

INF = math.inf


@pytest.fixture
def problem(rng):
    return make_problem(rng, Budget.per_row(2))


@pytest.fixture
def mask(problem):
    return problem.pools.smallest(problem.W**2)


def judge(problem, mask, bound, reason=Status.FEASIBLE, gap=1e-4, **more):
    return Solution.judge(problem, mask, bound, reason, gap=gap, seconds=1.5, solver="test", **more)


@pytest.mark.parametrize("ends", [(1.0, 0.5), (INF, 0.0), (0.0, -INF), (math.nan, 1.0), (0.0, math.nan)])
def test_bounds_refuse_to_cross(ends):
    with pytest.raises(ValueError, match=r"^bounds cross: lower "):
        Bounds(*ends)


@pytest.mark.parametrize(
    ("lower", "upper", "gap"),
    [
        (3.0, 4.0, 0.25),
        (-5.0, -4.0, 0.25),
        (-1.0, 4.0, 1.25),
        (2.0, 2.0, 0.0),
        (0.0, 0.0, 0.0),
        (-1.0, 0.0, INF),
        (-INF, 4.0, INF),
        (1.0, INF, INF),
    ],
)
def test_gap(lower, upper, gap):
    assert Bounds(lower, upper).gap == gap


def test_nothing_known_is_an_interval():
    assert (Bounds().lower, Bounds().upper, Bounds().gap) == (-INF, INF, INF)


def test_a_judged_value_is_the_problems(problem, mask):
    solution = judge(problem, mask, -INF, stats={"nodes": 3}, trace=[Progress(0.1, Bounds())])
    assert solution.value == problem.value(mask)
    np.testing.assert_array_equal(solution.weights, problem.weights(mask))
    assert (solution.bound, solution.gap, solution.seconds, solution.solver) == (-INF, INF, 1.5, "test")
    assert solution.stats == {"nodes": 3}
    assert solution.trace == (Progress(0.1, Bounds()),)
    assert solution.bounds == Bounds(-INF, solution.value)


def test_a_judged_mask_is_a_copy(problem, mask):
    solution = judge(problem, mask, -INF)
    before = solution.mask.copy()
    mask[:] = False
    np.testing.assert_array_equal(solution.mask, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        solution.value = 0.0


def test_a_bound_above_the_value_is_refused(problem, mask):
    value = problem.value(mask)
    for bound in (value + 3 * CLAMP * problem.scale, 2 * value, INF, math.nan):
        with pytest.raises(ArithmeticError, match=r"^test: bound .* lies above the value .* of a mask$"):
            judge(problem, mask, bound)


def test_a_bound_above_the_value_by_rounding_is_the_value(problem, mask):
    value = problem.value(mask)
    solution = judge(problem, mask, value + 0.5 * CLAMP * problem.scale)
    assert solution.bound == value
    assert solution.gap == 0.0
    assert solution.status is Status.OPTIMAL


def test_a_mask_off_the_budget_is_refused(problem, mask):
    mask[1, np.flatnonzero(mask[1])[0]] = False
    with pytest.raises(ValueError, match="mask does not meet the budget: pool 1 prunes 1 of 6 entries, not"):
        judge(problem, mask, 0.0)


@pytest.mark.parametrize("reason", Status)
def test_the_gap_decides_what_is_optimal(reason, problem, mask):
    value = problem.value(mask)
    close, far = value * (1 - 0.9e-3), value * (1 - 1.1e-3)
    assert judge(problem, mask, close, reason, gap=1e-3).status is Status.OPTIMAL
    unproven = Status.FEASIBLE if reason is Status.OPTIMAL else reason
    assert judge(problem, mask, far, reason, gap=1e-3).status is unproven
    assert judge(problem, mask, -INF, reason, gap=1e-3).status is unproven


def test_every_status_says_what_to_do():
    assert len({status.remedy for status in Status}) == len(Status)
    assert "larger time_limit" in Status.TIME_LIMIT.remedy
