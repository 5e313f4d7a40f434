import numpy as np
import pytest

from solvers import Budget, SubsetProblem, solve
from solvers.heuristics.layer.scaled import Layer
from solvers.heuristics.published.sparsegpt import SparseGPT
from tests.solvers.oracles import gram

M, N = 3, 12


def by_hand(problem, block):
    """The pass column by column: what is right of a column moves to the optimum given what is left of it."""
    H, W = problem.hessian.dense(0), problem.W.copy()
    m, n = W.shape
    mask = np.zeros((m, n), dtype=bool)
    kind, prune = problem.budget.kind, problem.pools.prune
    for j in range(n):
        ahead = problem.budget.of if kind == "n_of_m" else min(block, n - j)
        if j % (problem.budget.of if kind == "n_of_m" else block) == 0:
            scores = np.stack(
                [W[:, i] ** 2 / np.linalg.inv(H[i:, i:])[0, 0] for i in range(j, j + ahead)], axis=1
            )
            if kind == "per_layer":
                count = prune[0] * (j + ahead) // n - prune[0] * j // n
                mask[:, j : j + ahead].flat[np.argsort(scores.ravel())[:count]] = False
                chosen = np.zeros(scores.size, dtype=bool)
                chosen[np.argsort(scores.ravel())[:count]] = True
                mask[:, j : j + ahead] = chosen.reshape(scores.shape)
            else:
                for r in range(m):
                    k = prune[r] if kind == "per_row" else prune[0] * n // ahead
                    count = k * (j + ahead) // n - k * j // n
                    mask[r, j + np.argsort(scores[r])[:count]] = True
        right = np.arange(j + 1, n)
        move = -W[:, j] * mask[:, j]
        W[:, j] += move
        if len(right):
            W[:, right] -= np.outer(move, np.linalg.solve(H[np.ix_(right, right)], H[right, j]))
    return mask, W


@pytest.mark.parametrize("block", [4, 5, 128])
@pytest.mark.parametrize("budget", [Budget.per_row(6), Budget.per_row([2, 5, 9]), Budget.per_layer(17)])
def test_masks_and_weights_are_those_of_the_plain_pass(budget, block, rng):
    problem = SubsetProblem(rng.standard_normal((M, N)), gram(rng, N), budget)
    check(problem, block)


@pytest.mark.parametrize("block", [4, 6])
@pytest.mark.parametrize("budget", [Budget.n_of_m(2, 4), Budget.n_of_m(1, 3)])
def test_groups_are_chosen_when_the_pass_reaches_them(budget, block, rng):
    problem = SubsetProblem(rng.standard_normal((M, N)), gram(rng, N), budget)
    check(problem, block)


def check(problem, block):
    mask, weights = by_hand(problem, block)
    layer = Layer(problem)
    pruned, scaled = SparseGPT(block=block).sweep(layer)
    np.testing.assert_array_equal(pruned.numpy(), mask)
    found = scaled.numpy() / np.sqrt(np.diagonal(problem.hessian.dense(0)))
    np.testing.assert_allclose(found, weights, atol=2e-3)
    solution = solve(problem, SparseGPT(block=block))
    np.testing.assert_array_equal(solution.mask, mask)
    D = weights - problem.W
    cost = 0.5 * np.einsum("ri,ij,rj->", D, problem.hessian.dense(0), D)
    assert solution.stats["without_refit"] == pytest.approx(cost, rel=1e-3)
    assert solution.value <= cost


def test_a_curvature_a_row_is_refused(rng):
    problem = SubsetProblem(np.ones((2, 4)), np.stack([gram(rng, 4)] * 2), Budget.per_row(2))
    with pytest.raises(ValueError, match=r"sparsegpt.*one hessian"):
        solve(problem, "sparsegpt")
