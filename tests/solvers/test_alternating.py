import numpy as np
import pytest
from scipy.optimize import minimize

from solvers import Budget, SubsetProblem
from solvers.blocks import blocks
from solvers.bounds.alternating import alternate, best_shares
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.newton import relaxed_shares
from solvers.bounds.split import split_blocks


@pytest.mark.parametrize("keep", [1, 3, 5])
def test_best_shares_minimise_the_separable_cost(keep):
    size = np.abs(np.random.default_rng(keep).normal(size=7)) + 0.05
    size[2] *= 20.0
    z = best_shares(size, keep)

    def cost(shares):
        return float((size**2 / shares).sum())

    found = minimize(
        cost,
        np.full(7, keep / 7),
        bounds=[(1e-6, 1.0)] * 7,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - keep},
        options={"maxiter": 500, "ftol": 1e-13},
    )
    assert z.sum() == pytest.approx(keep, rel=1e-12)
    assert z.max() <= 1.0 + 1e-12
    assert cost(z) == pytest.approx(found.fun, rel=1e-5)


def test_alternating_steps_approach_the_relaxation_from_any_start():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 20)) @ rng.normal(size=(20, 20))
    H = X.T @ X / 60 + 0.1 * np.eye(20)
    block = blocks(SubsetProblem(rng.normal(size=(1, 20)), H, Budget.per_row(14)))[0]
    split = split_blocks([block])[0]
    start = np.full(20, 6 / 20)

    def bound(z):
        return lower_bound(block, split.d, relaxed_point(block, split.d, z))

    best = bound(relaxed_shares(block, split.d, start, tolerance=1e-9))
    bounds = [
        bound(alternate(block, split.d, start, steps=steps, tolerance=0.0)) for steps in (1, 5, 40, 300)
    ]
    assert bounds[0] < bounds[1] < bounds[2] <= best + 1e-9
    assert bounds[3] == pytest.approx(best, rel=1e-3)
