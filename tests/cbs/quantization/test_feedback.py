"""Error feedback: each step against the normal equations of Optimal Brain Quantization; all roundings."""

import itertools

import numpy as np
import pytest

from cbs.quantization.feedback import round_with_feedback
from cbs.quantization.grid import fit


def case(seed, n=5, rows=3, bias=False, prune=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, n)) @ rng.standard_normal((n, n))
    X = np.column_stack([X, np.ones(40)]) if bias else X
    W = rng.standard_normal((rows, n))
    pruned = np.zeros(W.shape, dtype=bool)
    for r in range(rows):
        pruned[r, rng.choice(n, prune, replace=False)] = True
    W[pruned] = 0.0
    H = X.T @ X / 40 + 1e-3 * np.eye(X.shape[1])
    return W, rng.standard_normal(rows) if bias else None, H, pruned


def cost(H, D):
    return 0.5 * np.einsum("ri,ij,rj->r", D, H, D)


def moved(W, bias, H, grid, pruned, codes, new):
    V = np.where(pruned, 0.0, grid.values(codes))
    return cost(H, V - W if bias is None else np.column_stack([V - W, new - bias]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prune", [0, 2])
def test_every_step_is_the_constrained_minimum(bias, prune):
    """Column by column: round it, and refit the free ones by the dense normal equations, as OBQ does."""
    W, b, H, pruned = case(1, bias=bias, prune=prune)
    grid = fit(W, pruned, 3)
    codes, new = round_with_feedback(W, b, H, pruned, grid)
    order = np.argsort(-np.diagonal(H)[: W.shape[1]], kind="stable")
    for r in range(len(W)):
        start = W[r] if b is None else np.append(W[r], b[r])
        v, fixed = start.copy(), list(np.flatnonzero(pruned[r]))
        for j in order:
            if pruned[r, j]:
                continue
            levels = grid.levels[r]
            q = int(np.abs(levels - v[j]).argmin())
            assert codes[r, j] == q
            fixed.append(j)
            v[j] = levels[q]
            free = [i for i in range(len(v)) if i not in fixed]
            D = np.where(np.isin(np.arange(len(v)), fixed), v - start, 0.0)
            if free:  # 0 = H_ff d_f + H_fF d_F
                D[free] = -np.linalg.solve(H[np.ix_(free, free)], H[np.ix_(free, fixed)] @ D[fixed])
            v = start + D
        if b is not None:
            assert new[r] == pytest.approx(v[-1])


@pytest.mark.parametrize("prune", [0, 2])
def test_it_lies_between_the_best_of_all_roundings_and_not_far_from_it(prune):
    """Over all 4^k roundings of a row; on average it is better than the nearest levels, if not always."""
    gains = []
    for seed in range(8):
        W, _, H, pruned = case(seed, prune=prune)
        grid = fit(W, pruned, 2)
        codes, _ = round_with_feedback(W, None, H, pruned, grid)
        found = moved(W, None, H, grid, pruned, codes, None)
        nearest = moved(W, None, H, grid, pruned, grid.nearest(W), None)
        for r in range(len(W)):
            kept = np.flatnonzero(~pruned[r])
            V = np.zeros((4 ** len(kept), W.shape[1]))
            V[:, kept] = grid.levels[r][np.array([*itertools.product(range(4), repeat=len(kept))])]
            best = cost(H, V - W[r]).min()
            assert best <= found[r] * (1 + 1e-9)
            assert best <= nearest[r] * (1 + 1e-9)
            gains.append((best, found[r], nearest[r]))
    best, found, nearest = np.sum(gains, axis=0)
    assert best <= found < nearest


def test_a_singular_gram_is_refused():
    W, _, _, pruned = case(0)
    with pytest.raises(
        ValueError, match="damping must be positive for rounding 'feedback' on a singular Gram"
    ):
        round_with_feedback(W, None, np.zeros((5, 5)), pruned, fit(W, pruned, 2))
