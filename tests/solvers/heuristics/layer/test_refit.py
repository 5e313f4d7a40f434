import numpy as np
import torch

from solvers import Budget, SubsetProblem
from solvers.heuristics.layer.refit import refit, residual, row_costs
from tests.solvers.oracles import dense_move, dense_value, gram


def case(rng, m=5, n=12, dtype=torch.float64):
    H, W = gram(rng, n), rng.standard_normal((m, n))
    pruned = rng.permuted(np.arange(n) < n // 2 * np.ones((m, 1)), axis=1)
    problem = SubsetProblem(W, H, Budget.per_row(n // 2))
    return problem, pruned, *(torch.as_tensor(A, dtype=dtype) for A in (H, W))


def test_survivors_end_where_the_dense_system_has_them(rng):
    problem, pruned, H, W = case(rng)
    kept = torch.as_tensor(~pruned)
    start = W * kept
    weights, left = refit(H, kept, start, residual(H, W, start), steps=100, tolerance=1e-12)
    np.testing.assert_allclose(weights.numpy(), problem.W + dense_move(problem, pruned), atol=1e-8)
    np.testing.assert_allclose(left.numpy(), ((W - weights) @ H).numpy(), atol=1e-10)
    np.testing.assert_allclose(
        float(row_costs(W, weights, left).sum()), dense_value(problem, pruned), rtol=1e-9
    )


def test_every_step_lowers_every_rows_cost_and_keeps_zeros(rng):
    _, pruned, H, W = case(rng)
    kept = torch.as_tensor(~pruned)
    weights = W * kept
    before = row_costs(W, weights, residual(H, W, weights))
    for steps in (1, 2, 4):
        moved, left = refit(H, kept, weights, residual(H, W, weights), steps=steps, tolerance=0.0)
        after = row_costs(W, moved, left)
        assert bool((after < before).all())
        assert bool((moved[~kept] == 0).all())
        before = after


def test_rows_that_are_done_stay_and_the_loop_ends(rng):
    _, pruned, H, W = case(rng)
    pruned[0] = False
    kept = torch.as_tensor(~pruned)
    start = W * kept
    weights, left = refit(H, kept, start, residual(H, W, start), steps=100, tolerance=1e-9)
    assert bool((weights[0] == W[0]).all())
    again, _ = refit(H, kept, weights, left, steps=5, tolerance=1e-6)
    assert again is weights
