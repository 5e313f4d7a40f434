"""The best split, compiled and batched."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.interior import block_interior_point, scaling
from solvers.bounds.secure import secure
from solvers.form.blocks import blocks
from tests.solvers.oracles import make_problem

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
def test_the_compiled_split_is_worth_as_much_as_the_batched_one(case, rng):
    budget, options = CASES[case]
    found = blocks(make_problem(rng, budget, **options))
    for block, batched in zip(found, scaling.split_batch(found, tolerance=5e-4), strict=True):
        d, z, steps = scaling.split_alone(block, 5e-4)
        bound, other = bound_of(block, d, z), bound_of(block, *batched[:2])
        assert bound == pytest.approx(other, abs=1e-3 * scaling.magnitude(block))
        assert steps <= batched[2] + 5
        np.testing.assert_allclose(np.bincount(block.labels, weights=z), block.keep, atol=1e-9)


def wide_range(rng, n, refit, damping):
    """A row whose inputs differ by orders of magnitude, of a curvature that is close to singular."""
    size = np.exp(rng.standard_normal(n))
    X = rng.standard_normal((n - 2, n))
    H = (X.T @ X / n + damping * np.eye(n)) * np.outer(size, size)
    W = rng.standard_normal((1, n)) / size
    G = None if refit else rng.standard_normal((1, n)) / size
    return blocks(SubsetProblem(W, 0.5 * (H + H.T), Budget.per_row(n // 2), refit=refit, gradient=G))[0]


@pytest.mark.parametrize("damping", [1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_ill_conditioned_blocks_too(refit, damping):
    for seed in range(4):
        block = wide_range(np.random.default_rng(seed), 16, refit, damping)
        (batched,) = scaling.split_batch([block], tolerance=5e-4)
        d, z, _ = scaling.split_alone(block, 5e-4)
        gained = bound_of(block, d, z) - bound_of(block, *batched[:2])
        assert gained >= -1e-3 * scaling.magnitude(block)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_every_iterate_is_a_valid_split_and_none_is_worse_than_the_first(refit, rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit))
    data, unit = scaling.scaled(block)
    bounds = []
    for limit in range(16):
        z, d, steps = block_interior_point.saddle_point(data, 1e-9, limit)
        assert steps == limit
        assert np.linalg.eigvalsh(block.H[0] - np.diag(d * unit))[0] > 0
        assert ((z > 0) & (z < 1)).all()
        assert z.sum() == pytest.approx(data.counts[0])
        assert (d > 0).all() or not refit
        bounds.append(bound_of(block, d * unit, z if refit else 1 - z))
    assert max(bounds) == pytest.approx(bounds[-1], abs=1e-4 * scaling.magnitude(block))
    assert bounds[-1] > bounds[0] + 0.1 * abs(bounds[0])


def test_a_looser_tolerance_takes_fewer_steps(rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9))
    steps = [scaling.split_alone(block, tolerance)[2] for tolerance in (1.0, 1e-2, 1e-6)]
    assert steps[0] < steps[1] < steps[2] < scaling.MAX_STEPS


@pytest.mark.parametrize("power", [-40, 60])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_units_of_the_curvature_do_not_matter(refit, power, rng):
    problem = make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit)
    same = SubsetProblem(problem.W, problem.hessian.dense(0) * 2.0**power, problem.budget, refit=refit)
    (d, z, steps), (other, shares, taken) = (
        scaling.split_alone(*blocks(one), 5e-4) for one in (problem, same)
    )
    assert steps == taken
    np.testing.assert_allclose(other, d * 2.0**power, rtol=1e-6)
    np.testing.assert_allclose(shares, z, rtol=1e-6)
