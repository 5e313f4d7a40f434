"""Tangents are below the cost of every mask, in rational arithmetic, and stay there as whole numbers."""

from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget
from solvers.bounds.evaluate import relaxed_point
from solvers.foreign import tangents
from solvers.foreign.mixed_integer import root
from solvers.foreign.tangents import Tangent, in_integers, layer
from tests.solvers.oracles import BUDGETS, all_masks, exact_value, make_problem, unbalanced_row

WHOLE = ["per_layer", "columns"]


def points(layer, rng, count):
    """Points of random shares, whole ones among them."""
    for k in range(count):
        shares = rng.random(layer.whole.n)
        yield relaxed_point(layer.whole, layer.d, np.rint(shares) if k % 2 else shares)


def ones(problem, mask):
    """`[N]` the indicators of a mask: kept (joint), or pruned (selection)."""
    return problem.pools.decisions(mask).ravel() != problem.refit


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", WHOLE)
def test_tangents_of_rows_add_up_to_no_more_than_the_cost(rng, budget, refit):
    problem = make_problem(rng, BUDGETS[budget], n=5, refit=refit, gradient=not refit, kind="stacked")
    found = layer(problem, root(problem).d)
    assert len(found.rows) == (2 if budget == "per_layer" else 1)
    for u in points(found, rng, 6):
        cuts = found.tangents(u)
        for mask in all_masks(problem):
            one = ones(problem, mask)
            exact = sum(exact_value(problem, r, mask[r]) for r in range(problem.m))
            right = sum(
                Fraction(cut.base) - sum(Fraction(s) for s in cut.scores[one[span]])
                for cut, span in zip(cuts, found.spans, strict=True)
            )
            assert right <= exact


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_a_tangent_touches_at_the_mask_of_its_point(rng, refit):
    problem = make_problem(rng, Budget.per_layer(5), refit=refit, gradient=not refit, kind="stacked")
    found = layer(problem, root(problem).d)
    for mask in list(all_masks(problem))[::40]:
        one = ones(problem, mask)
        cuts = found.tangents(relaxed_point(found.whole, found.d, (~mask).ravel().astype(float)))
        right = sum(
            cut.base - cut.scores[one[span]].sum() for cut, span in zip(cuts, found.spans, strict=True)
        )
        assert right == pytest.approx(problem.value(mask), rel=1e-9)


@pytest.mark.parametrize("bits", [3, 26])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_whole_numbers_cut_no_mask_off(monkeypatch, refit, bits):
    monkeypatch.setattr(tangents, "BITS", bits)
    rng = np.random.default_rng(0)
    lost = []
    for seed in range(6):
        problem = unbalanced_row(seed, refit, 1.0)
        found = layer(problem, root(problem).d)
        scale = found.scale(abs(problem.value(next(all_masks(problem)))))
        assert scale == 2.0 ** round(np.log2(scale))
        for u in points(found, rng, 4):
            (cut,) = found.tangents(u)
            whole = in_integers(cut, scale)
            for mask in all_masks(problem):
                one = ones(problem, mask)[found.spans[0]]
                right = whole.base - sum(np.array(whole.scores, dtype=object)[one])
                assert right <= Fraction(scale) * exact_value(problem, 0, mask[0])
                lost.append(scale * (cut.base - cut.scores[one].sum()) - right)
    assert 1.0 < max(lost) <= 1.0 + 5


def test_numbers_that_do_not_fit_give_no_cut():
    assert in_integers(Tangent(1.0, np.ones(3)), 2.0**60) is None
    assert in_integers(Tangent(1.0, np.array([np.inf])), 1.0) is None
    assert in_integers(Tangent(1.5, np.array([0.5, 0.1])), 2.0) is not None


def test_the_whole_is_its_rows(rng):
    problem = make_problem(rng, Budget.per_layer(5), m=3, kind="stacked")
    found = layer(problem, root(problem).d)
    for mask in list(all_masks(problem))[::500]:
        assert found.whole.value(mask.ravel()) == pytest.approx(problem.value(mask), rel=1e-10)
