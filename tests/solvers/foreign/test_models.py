from fractions import Fraction

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.allocation import allocate
from solvers.bounds.split import split_blocks
from solvers.foreign.mixed_integer import root
from solvers.foreign.models import binary_quadratic, factor, joint_model, rounded, selection_model
from solvers.form.blocks import Part, blocks
from solvers.greedy.curves import row_curves
from tests.solvers.oracles import BUDGETS, all_masks, exact_value, make_problem


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("gradient", [True, False])
def test_objective_is_the_problems_value(rng, budget, kind, gradient):
    problem = make_problem(rng, BUDGETS[budget], refit=False, kind=kind, gradient=gradient)
    programme = binary_quadratic(problem)
    np.testing.assert_array_equal(
        np.bincount(programme.labels.ravel()) >= programme.prune, np.full(len(programme.prune), True)
    )
    for mask in list(all_masks(problem))[::5]:
        x = problem.pools.decisions(mask)
        assert programme.value(x) == pytest.approx(problem.value(mask), rel=1e-10, abs=1e-12 * problem.scale)


def test_rounding_covers_the_exact_cost():
    rng = np.random.default_rng(4)
    size = np.exp(4.0 * rng.standard_normal(5))
    X = rng.standard_normal((9, 5)) * size
    problem = SubsetProblem(
        rng.standard_normal((3, 5)) / size, X.T @ X, Budget.columns(2), refit=False,
        gradient=rng.standard_normal((3, 5)),
    )  # fmt: skip
    programme = binary_quadratic(problem)
    worst = 0.0
    for mask in all_masks(problem):
        x = problem.pools.decisions(mask)[0]
        exact = sum(exact_value(problem, r, mask[r]) for r in range(3))
        index = np.flatnonzero(x)
        stored = sum(Fraction(programme.A[0, i, j]) for i in index for j in index) / 2
        stored -= sum(Fraction(programme.c[0, i]) for i in index)
        error = abs(float(exact - stored))
        worst = max(worst, error)
        assert error <= programme.rounding[0, index].sum()
    assert worst > 0.0


def test_joint_problems_are_not_binary_quadratic(rng):
    with pytest.raises(ValueError, match="refit=False"):
        binary_quadratic(make_problem(rng, Budget.per_row(2)))


WHOLE = ["per_layer", "columns"]


def whole(problem, rank):
    """The problem as one part whose incumbent is the mask of some rank, with all no dearer masks."""
    masks = sorted(all_masks(problem), key=problem.value)
    mask = masks[rank]
    return Part(problem, slice(0, problem.m), mask, problem.value(mask), -np.inf), masks[: rank + 1]


def joint_cost(model, v):
    moved = v - model.a
    cost = 0.5 * np.einsum("ri,rij,rj->", moved, model.R, moved)
    cost += 0.5 * (model.d * (v**2 - 2.0 * model.a * v + model.a**2)).sum()
    return model.unit * cost


@pytest.mark.parametrize("strengthened", [True, False])
@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("budget", WHOLE)
def test_joint_model_keeps_every_better_mask(rng, budget, kind, strengthened):
    problem = make_problem(rng, BUDGETS[budget], kind=kind)
    part, better = whole(problem, 15)
    model = joint_model(part, root(problem).d if strengthened else None)
    assert bool((model.d > 0).all()) == strengthened
    assert model.widening > 0.0
    assert np.linalg.eigvalsh(model.R).min() >= -1e-9
    for mask in better:
        v = problem.weights(mask) / model.scale
        assert joint_cost(model, v) == pytest.approx(problem.value(mask), rel=1e-8)
        assert (v[~mask] >= model.low[~mask]).all()
        assert (v[~mask] <= model.high[~mask]).all()
        assert not (problem.pools.decisions(mask) & model.kept).any()


def test_big_m_is_tight_for_a_lone_move():
    H = np.diag([1.0, 2.0, 3.0])
    H[0, 1] = H[1, 0] = 1.3
    problem = SubsetProblem([[1.0, 0.5, 9.0]], H, Budget.per_row(1))
    part, _ = whole(problem, 1)
    model = joint_model(part, None)
    moved = problem.weights(part.mask) / model.scale - model.a
    assert np.abs(moved).max() == pytest.approx(np.sqrt(2.0), rel=1e-9)
    np.testing.assert_array_equal(model.kept, [[False, False, True]])


@pytest.mark.parametrize("strengthened", [True, False])
@pytest.mark.parametrize("budget", WHOLE)
@pytest.mark.parametrize("gradient", [True, False])
def test_selection_model_is_the_cost(rng, budget, gradient, strengthened):
    problem = make_problem(rng, BUDGETS[budget], refit=False, gradient=gradient, kind="stacked")
    part, better = whole(problem, 15)
    model = selection_model(part, root(problem).d if strengthened else None)
    assert np.linalg.eigvalsh(model.R).min() >= -1e-9 * np.abs(model.R).max()
    for mask in better:
        x = problem.pools.decisions(mask).astype(float)
        squares = np.einsum("bi,bij,bj->", x, model.R, x)
        cost = model.unit * (0.5 * squares + (model.linear * x).sum())
        assert cost == pytest.approx(problem.value(mask), rel=1e-8, abs=1e-10 * problem.scale)
        assert squares <= model.reach


def test_root_bounds_every_part(rng):
    problem = make_problem(rng, Budget.per_row(3), kind="stacked")
    found = root(problem)
    best = min(all_masks(problem), key=problem.value)
    assert found.floors is not None
    for floor, value in zip(found.floors, problem.row_values(best), strict=True):
        assert 0.0 < floor <= value
    layer = make_problem(rng, Budget.per_layer(5))
    counts = allocate(list(row_curves(layer.W, layer.hessian).values), 5)
    np.testing.assert_array_equal(
        root(layer).d, np.concatenate([best.d for best in split_blocks(blocks(layer, counts))])
    )
    assert root(layer).floors is None


def test_factor_leaves_out_what_is_not_there(rng):
    X = rng.standard_normal((3, 6))
    L = factor(X.T @ X)
    assert L.shape == (3, 6)
    np.testing.assert_allclose(L.T @ L, X.T @ X, atol=1e-12)
    assert factor(np.zeros((4, 4))).shape == (0, 4)


@pytest.mark.parametrize("budget", BUDGETS)
def test_rounded_meets_the_budget(rng, budget):
    problem = make_problem(rng, BUDGETS[budget])
    shares = rng.random(problem.pools.labels.shape)
    mask = rounded(problem, shares)
    assert problem.pools.violation(mask) is None
    pruned = problem.pools.decisions(mask)
    for p in range(len(problem.pools.prune)):
        pool = problem.pools.labels == p
        if pruned[pool].any() and not pruned[pool].all():
            assert shares[pool & pruned].min() > shares[pool & ~pruned].max()
