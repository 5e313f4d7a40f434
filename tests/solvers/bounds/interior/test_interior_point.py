"""The best split of a block, and the units that it is found in."""

from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds import split as splits
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.interior import interior_point
from solvers.bounds.secure import secure
from solvers.form.blocks import blocks
from tests.solvers.oracles import make_problem, semidefinite_bound

CASES = {
    "joint": (Budget.per_row(11), {"m": 2, "n": 18}),
    "selection": (Budget.per_row(11), {"m": 2, "n": 18, "refit": False}),
    "selection with gradient": (Budget.per_row(7), {"m": 2, "n": 18, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 4), {"m": 2, "n": 16}),
    "pools of a selection": (Budget.n_of_m(1, 4), {"m": 2, "n": 16, "refit": False}),
    "columns": (Budget.columns(7), {"m": 3, "n": 14}),
    "columns of a selection": (Budget.columns(7), {"m": 3, "n": 14, "refit": False}),
}


def bound_of(block, d, z):
    d = secure(block.H[0], d, block.refit)[None]
    return lower_bound(block, d, relaxed_point(block, d, z))


@pytest.mark.parametrize("case", CASES)
def test_the_best_split_gives_the_semidefinite_bound(case, rng):
    budget, options = CASES[case]
    for block in blocks(make_problem(rng, budget, **options)):
        d, z, steps = splits.best_split(block, 5e-4)
        assert bound_of(block, d, z) == pytest.approx(
            semidefinite_bound(block), abs=1e-3 * splits.magnitude(block)
        )
        assert steps < 20
        np.testing.assert_allclose(np.bincount(block.labels, weights=z), block.keep, atol=1e-9)


def wide_range(rng, n, refit, damping):
    """A row whose inputs differ by orders of magnitude, of a curvature that is close to singular."""
    size = np.exp(rng.standard_normal(n))
    X = rng.standard_normal((n - 2, n))
    H = (X.T @ X / n + damping * np.eye(n)) * np.outer(size, size)
    W = rng.standard_normal((1, n)) / size
    G = None if refit else rng.standard_normal((1, n)) / size
    return blocks(SubsetProblem(W, 0.5 * (H + H.T), Budget.per_row(n // 2), refit=refit, gradient=G))[0]


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")  # of the oracle
@pytest.mark.parametrize("damping", [1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_ill_conditioned_blocks_too(refit, damping):
    for seed in range(4):
        block = wide_range(np.random.default_rng(seed), 16, refit, damping)
        d, z, _ = splits.best_split(block, 5e-4)
        data, _ = splits.scaled(block)
        unit = splits.magnitude(block)
        same = replace(block, H=data.H[None], B=data.B[None], constant=data.constant)
        assert bound_of(block, d, z) / unit >= semidefinite_bound(same) - 1e-3


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_every_iterate_is_a_valid_split_and_none_is_worse_than_the_first(refit, rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit))
    data, unit = splits.scaled(block)
    bounds = []
    for limit in range(16):
        z, d, steps = interior_point.saddle_point(data, 1e-9, limit)
        assert steps == limit
        assert np.linalg.eigvalsh(block.H[0] - np.diag(d * unit))[0] > 0
        assert ((z > 0) & (z < 1)).all()
        assert z.sum() == pytest.approx(data.counts[0])
        assert (d > 0).all() or not refit
        bounds.append(bound_of(block, d * unit, z if refit else 1 - z))
    assert max(bounds) == pytest.approx(bounds[-1], abs=1e-4 * splits.magnitude(block))
    assert bounds[-1] > bounds[0] + 0.1 * abs(bounds[0])


def test_a_looser_tolerance_takes_fewer_steps(rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9))
    steps = [splits.best_split(block, tolerance)[2] for tolerance in (1.0, 1e-2, 1e-6)]
    assert steps[0] < steps[1] < steps[2] < splits.MAX_STEPS


@pytest.mark.parametrize("power", [-40, 60])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_units_of_the_curvature_do_not_matter(refit, power, rng):
    problem = make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit)
    same = SubsetProblem(problem.W, problem.hessian.dense(0) * 2.0**power, problem.budget, refit=refit)
    (d, z, steps), (other, shares, taken) = (splits.best_split(*blocks(one), 5e-4) for one in (problem, same))
    assert steps == taken
    np.testing.assert_allclose(other, d * 2.0**power, rtol=1e-6)
    np.testing.assert_allclose(shares, z, rtol=1e-6)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_wide_blocks_take_the_same_steps_and_are_stopped_between_them(refit, rng, monkeypatch):
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit))
    data, _ = splits.scaled(block)
    whole = interior_point.saddle_point(data, 1e-6, 40)
    monkeypatch.setattr(interior_point, "NARROW", 8)
    for found, expected in zip(interior_point.saddle_point(data, 1e-6, 40), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    polls = iter([None, None, None, "now"])
    assert interior_point.saddle_point(data, 1e-6, 40, lambda: next(polls))[2] == 3
