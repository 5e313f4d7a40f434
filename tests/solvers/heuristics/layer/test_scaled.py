import numpy as np
import pytest
import torch

from solvers import Budget, SubsetProblem
from solvers.heuristics.layer.scaled import JITTER, Layer, cholesky, least, refit, residual, row_costs
from tests.solvers.oracles import dense_move, dense_value, gram, make_problem

BUDGETS = {
    "per_row": Budget.per_row(7),
    "row_counts": Budget.per_row([0, 3, 12]),
    "none": Budget.per_row(0),
    "all": Budget.per_row(12),
    "per_layer": Budget.per_layer(17),
    "n_of_m": Budget.n_of_m(1, 4),
    "wide groups": Budget.n_of_m(5, 12),
    "columns": Budget.columns(5),
}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("ties", [False, True])
def test_picks_are_the_pools_least(budget, ties, rng):
    problem = make_problem(rng, BUDGETS[budget], m=3, n=12)
    scores = rng.standard_normal((3, 12)).astype(np.float32)
    if ties:
        scores = np.round(scores)
    picked = Layer(problem).pick(torch.as_tensor(scores)).numpy()
    assert problem.pools.violation(picked) is None
    summed = scores.sum(0, keepdims=True) if problem.pools.coupled else scores
    expected = problem.pools.expand(problem.pools.smallest(summed.astype(np.float64)), 3)
    np.testing.assert_allclose(scores[picked].sum(), scores[expected].sum(), rtol=1e-6)
    if not ties:
        np.testing.assert_array_equal(picked, expected)


def test_some_rows_are_picked_by_their_own_counts(rng):
    problem = make_problem(rng, BUDGETS["row_counts"], m=3, n=12)
    picked = Layer(problem).pick(torch.rand(2, 12), torch.tensor([2, 1]))
    assert picked.sum(1).tolist() == [12, 3]


def test_least_takes_the_lowest_index_of_equals():
    chosen = least(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), torch.tensor([2]))
    assert chosen.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("leveled", [False, True])
def test_scales_leave_costs_as_they_are(leveled, rng):
    problem = make_problem(rng, Budget.per_row(3), m=2, n=9)
    layer = Layer(problem, leveled=leveled)
    scaled = 0.5 * float(((layer.W @ layer.H) * layer.W).sum())
    assert scaled == pytest.approx(
        0.5 * np.einsum("ri,ij,rj->", problem.W, problem.hessian.dense(0), problem.W)
    )
    inverse = layer.inverse() @ layer.H
    np.testing.assert_allclose(inverse.numpy(), np.eye(9), atol=1e-3)
    eigenvalues = np.linalg.eigvalsh(layer.H.numpy().astype(np.float64))
    assert layer.mean_eigenvalue == pytest.approx(np.exp(np.log(eigenvalues).mean()), rel=1e-3)


def test_leveled_squares_are_nearer_to_what_pruning_an_entry_costs(rng):
    n, keep = 60, 30
    loadings = rng.uniform(0.0, 3.0, (n, 1)) * rng.standard_normal((n, 5))
    H = (loadings @ loadings.T + np.eye(n)) * np.outer(s := np.exp(rng.standard_normal(n)), s)
    problem = SubsetProblem(rng.standard_normal((1, n)), H, Budget.per_row(n - keep))
    kept = rng.permutation(n)[:keep]
    costs = np.log(problem.W[0, kept] ** 2 / np.diagonal(np.linalg.inv(H[np.ix_(kept, kept)])))
    misses = [
        np.std(costs - np.log(Layer(problem, leveled=leveled).W[0, kept].numpy() ** 2.0))
        for leveled in (True, False)
    ]
    assert misses[0] < 0.8 * misses[1]
    assert abs(np.mean(costs - np.log(Layer(problem, leveled=True).W[0, kept].numpy() ** 2.0))) < 0.5


def test_nothing_is_leveled_where_inputs_do_not_correlate(rng):
    problem = SubsetProblem(rng.standard_normal((2, 6)), np.diag(rng.uniform(1, 3, 6)), Budget.per_row(2))
    layer = Layer(problem, leveled=True)
    np.testing.assert_allclose(layer.H.numpy(), np.eye(6), atol=1e-6)


def test_what_single_precision_finds_indefinite_gets_a_jitter():
    H = torch.ones(3, 3)
    L = cholesky(H)
    np.testing.assert_allclose((L @ L.T).numpy(), np.ones((3, 3)) + JITTER * np.eye(3), atol=2e-6)


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
