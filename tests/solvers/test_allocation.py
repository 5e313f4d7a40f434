import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from solvers import allocation
from solvers.allocation import allocate, allocation_value, lowered, pool

QUICK = settings(derandomize=True, max_examples=80, deadline=None)
COST = st.floats(-5, 5).map(lambda x: round(x, 3))
CURVES = st.lists(st.lists(COST, min_size=1, max_size=5).map(np.array), min_size=1, max_size=4)


def every(curves, total):
    """Every count vector of a total with its cost."""
    for counts in itertools.product(*(range(len(c)) for c in curves)):
        if sum(counts) == total:
            yield counts, sum(c[k] for c, k in zip(curves, counts, strict=True))


def cost(curves, counts):
    return sum(c[k] for c, k in zip(curves, counts, strict=True))


def entries(curves):
    return sum(len(c) - 1 for c in curves)


@pytest.fixture
def approximate(monkeypatch):
    monkeypatch.setattr(allocation, "EXACT_WORK", -1)


@QUICK
@given(CURVES, st.data())
def test_exact_programme_against_every_count_vector(curves, data):
    total = data.draw(st.integers(0, entries(curves)))
    counts = allocate(curves, total)
    best = min(value for _, value in every(curves, total))
    assert counts.sum() == total
    assert cost(curves, counts) == pytest.approx(best, abs=1e-12)
    bound = allocation_value(curves, total)
    assert best - 1e-12 < bound <= best


@QUICK
@given(CURVES, st.data())
def test_beyond_the_exact_work_counts_fit_and_the_bound_holds(curves, data):
    assume(entries(curves))
    total = data.draw(st.integers(0, entries(curves)))
    best = min(value for _, value in every(curves, total))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "EXACT_WORK", -1)
        counts = allocate(curves, total)
        bound = allocation_value(curves, total)
    assert counts.sum() == total
    assert all(0 <= k < len(c) for c, k in zip(curves, counts, strict=True))
    assert cost(curves, counts) >= best - 1e-12
    assert bound <= best


@QUICK
@given(st.lists(st.lists(COST, min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_convex_curves_are_allocated_exactly_by_their_envelopes(steps, data):
    curves = [np.cumsum([0.0, *sorted(row)]) for row in steps]
    total = data.draw(st.integers(0, entries(curves)))
    best = min(value for _, value in every(curves, total))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "EXACT_WORK", -1)
        assert cost(curves, allocate(curves, total)) == pytest.approx(best, abs=1e-12)
        assert best - 1e-10 < allocation_value(curves, total) <= best


def test_counts_that_cannot_be_had_are_avoided():
    curves = [np.array([0.0, np.inf, 5.0]), np.array([0.0, 1.0, np.inf]), np.array([np.inf, 0.0])]
    assert allocate(curves, 4).tolist() == [2, 1, 1]
    assert allocation_value(curves, 4) == pytest.approx(6.0)
    assert allocate(curves, 2).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"^no allocation of 5 has a finite cost$"):
        allocate(curves, 5)


def test_infinite_costs_leave_the_bound_valid(approximate):
    curves = [np.array([0.0, np.inf, 5.0]), np.array([0.0, 1.0, np.inf])]
    assert allocation_value(curves, 3) <= 6.0
    assert allocation_value(curves, 1) <= 1.0
    assert np.isfinite(allocation_value(curves, 1))


def test_infinite_costs_are_not_taken_beyond_the_exact_work(approximate):
    curves = [np.array([0.0, 1.0, np.inf, np.inf]), np.array([0.0, 2.0, 4.0, 9.0])]
    assert allocate(curves, 4).tolist() == [1, 3]


def test_the_cheapest_mix_is_not_the_cheapest_step():
    curves = [np.array([0.0, 10.0, 10.1]), np.array([0.0, 6.0, 12.0])]
    assert allocate(curves, 2).tolist() == [2, 0]
    assert allocate(curves, 1).tolist() == [0, 1]


@pytest.mark.parametrize("total", [-1, 5])
def test_totals_that_are_not_there(total):
    curves = [np.zeros(3), np.zeros(3)]
    for ask in (allocate, allocation_value):
        with pytest.raises(ValueError, match=rf"^total is {total}, but the rows have 4 entries$"):
            ask(curves, total)


@pytest.mark.parametrize("work", [4e9, -1])
def test_the_bound_allows_for_rounding_in_its_sums(work, monkeypatch):
    """Curves with large terms that cancel: about half of the plain float sums exceed the exact one."""
    monkeypatch.setattr(allocation, "EXACT_WORK", work)
    rng = np.random.default_rng(0)
    for _ in range(20):
        terms = rng.standard_normal(50) * np.exp2(rng.uniform(0, 20, 50))
        exact = sum(Fraction(x) for x in terms.tolist())
        bound = allocation_value([np.array([x, np.inf]) for x in terms], 0)
        assert bound <= exact
        assert bound == pytest.approx(float(exact), abs=1e-6)


def test_what_rounding_adds_is_judged_by_what_the_least_cost_takes():
    """An entry that is far dearer than the least cost, and not part of it, costs the bound nothing."""
    curves = [np.array([0.0, 1.0, 1e18]), np.array([0.0, 3.0, 4e17])]
    assert allocation_value(curves, 2) == pytest.approx(4.0, rel=1e-12)
    assert allocation_value([np.array([0.0, -5.0]), np.array([0.0, -1e9])], 0) == 0.0
    fixed = pool(curves, 3)
    both = pool([np.array([0.0, 1e18]), fixed.cost], 2)
    assert lowered(float(both.cost[2]), both, fixed) == pytest.approx(4.0, rel=1e-12)


def test_a_least_cost_is_lowered_by_more_than_rounding_where_terms_cancel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        terms = np.concatenate([x := rng.standard_normal(20) * np.exp2(rng.uniform(0, 40, 20)), -x])
        curves = [np.array([t]) for t in terms]
        fixed = pool(curves[:15], 0)
        both = pool([*curves[15:], fixed.cost], 0)
        assert lowered(float(both.cost[0]), both, fixed) <= sum(map(Fraction, terms.tolist()))


@QUICK
@given(CURVES, st.data())
def test_a_pool_stands_for_its_rows_at_every_total(curves, data):
    total = data.draw(st.integers(0, entries(curves)))
    pooled = pool(curves, total)
    assert len(pooled.cost) == total + 1
    for taken in range(total + 1):
        counts = pooled.counts(taken)
        assert counts.sum() == taken
        assert cost(curves, counts) == pytest.approx(pooled.cost[taken], abs=1e-12)
        assert pooled.cost[taken] == pytest.approx(min(v for _, v in every(curves, taken)), abs=1e-12)


@QUICK
@given(CURVES, CURVES, st.data())
def test_a_pool_may_take_the_place_of_its_rows(first, second, data):
    total = data.draw(st.integers(0, entries(first) + entries(second)))
    pooled = pool(first, total)
    both = pool([*second, pooled.cost], total)
    assert both.cost[total] == pytest.approx(pool([*first, *second], total).cost[total], abs=1e-12)
    shares = both.counts(total)
    assert pooled.counts(int(shares[-1])).sum() + shares[:-1].sum() == total
