"""Small problems, and slow answers to them by other means, that the tests of package solvers share."""

import itertools
from fractions import Fraction

import numpy as np
import scipy.linalg
from sklearn.datasets import load_digits

from solvers import Budget, FactorHessian, SubsetProblem
from solvers.relaxations.sdp import import_cvxpy

cp = import_cvxpy()

BUDGETS = {
    "per_row": Budget.per_row(3),
    "row_counts": Budget.per_row([1, 5]),
    "per_layer": Budget.per_layer(5),
    "n_of_m": Budget.n_of_m(1, 3),
    "columns": Budget.columns(3),
}


POOLS = {
    "groups": Budget.groups([2, 4], [1, 2]),
    "pools": Budget.pools([1, 0, 2, 0, 1, 0], [1, 2, 0]),
    "shared pools": Budget.pools([1, 0, 1, 0, 0, 0], [1, 2], shared=True),
}


def gram(rng, n, damping=0.1):
    """A correlated, damped covariance `[n, n]`."""
    X = rng.standard_normal((3 * n, n)) @ rng.standard_normal((n, n))
    return X.T @ X / len(X) + damping * np.eye(n)


def make_problem(rng, budget, *, m=2, n=6, refit=True, kind="shared", gradient=False, movable=()):
    """A random problem; `kind` is "shared", "stacked" or "factor", `n` counts movable columns too."""
    H = {
        "shared": lambda: gram(rng, n),
        "stacked": lambda: np.stack([gram(rng, n) for _ in range(m)]),
        "factor": lambda: FactorHessian(rng.standard_normal((3, n)), 0.2),
    }[kind]()
    W = rng.standard_normal((m, n))
    G = 0.3 * rng.standard_normal((m, n)) if gradient else None
    return SubsetProblem(W, H, budget, refit=refit, gradient=G, movable=movable)


def all_masks(problem):
    """Every mask of a problem's budget."""
    pools = problem.pools
    flat = pools.labels.ravel()
    parts = [
        itertools.combinations(np.flatnonzero(flat == p), int(k)) for p, k in enumerate(pools.prune.tolist())
    ]
    for choice in itertools.product(*parts):
        x = np.zeros(flat.size, dtype=bool)
        x[[i for part in choice for i in part]] = True
        mask = np.zeros(problem.W.shape, dtype=bool)
        mask[:, problem.prunable] = pools.expand(x.reshape(pools.labels.shape), problem.m)
        yield mask


def block_masks(block):
    """`[.., n]` every decision vector of a block, True where pruned."""
    pools = [np.flatnonzero(block.labels == p) for p in range(len(block.keep))]
    parts = [itertools.combinations(pool, int(k)) for pool, k in zip(pools, block.prune, strict=True)]
    chosen = np.array([[i for part in choice for i in part] for choice in itertools.product(*parts)], int)
    masks = np.zeros((len(chosen), block.n), dtype=bool)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks


def dense_move(problem, mask):
    """The best move of a mask from the optimality system of `min g.D + 1/2 D'HD`, `D = fixed` on a set."""
    D = np.empty_like(problem.W)
    for r, w in enumerate(problem.W):
        moving = ~mask[r] if problem.refit else np.zeros(problem.n, dtype=bool)
        moving[problem.movable] = True
        fixed = np.flatnonzero(~moving)
        g = np.zeros(problem.n) if problem.G is None else problem.G[r]
        E = np.eye(problem.n)[fixed]
        system = np.block([[problem.hessian.dense(r), E.T], [E, np.zeros((len(fixed), len(fixed)))]])
        target = np.where(mask[r], -w, 0.0)[fixed]
        D[r] = np.linalg.lstsq(system, np.concatenate([-g, target]), rcond=None)[0][: problem.n]
    return D


def dense_value(problem, mask):
    """The loss increase of a mask, by `dense_move`."""
    D = dense_move(problem, mask)
    G = np.zeros_like(D) if problem.G is None else problem.G
    H = [problem.hessian.dense(r) for r in range(problem.m)]
    return sum(g @ x + 0.5 * x @ A @ x for g, x, A in zip(G, D, H, strict=True))


def optimum(problem):
    """The least value over every mask of the budget."""
    return problem.value(best_mask(problem))


def best_mask(problem):
    """The first of the best masks of the budget; a row is priced once for each of its masks."""
    known = {}

    def cost(mask):
        bits, n = mask.tobytes(), mask.shape[1]
        parts = [(r, bits[r * n : r * n + n]) for r in range(len(mask))]
        if any(part not in known for part in parts):
            known.update(zip(parts, problem.row_values(mask).tolist(), strict=True))
        return sum(known[part] for part in parts)

    return min(all_masks(problem), key=cost)


def relaxed_value(block, d, fix=None):
    """The split relaxation of a block at fixings (1 kept, -1 pruned, 0 free), by a generic convex solver."""
    fix = np.zeros(block.n, dtype=int) if fix is None else np.asarray(fix)
    z = cp.Variable(block.n)
    limits = [z[i] == (1 if fix[i] > 0 else 0) for i in np.flatnonzero(fix)]
    limits += [z >= 0, z <= 1]
    limits += [cp.sum(z[block.labels == p]) == k for p, k in enumerate(block.keep)]
    cost = block.constant if block.refit else 0.0
    for H, B, e in zip(block.H, block.B, d, strict=True):
        root = scipy.linalg.sqrtm(H - np.diag(e)).real
        if block.refit:
            V = cp.Variable(B.shape)
            on = np.flatnonzero(fix >= 0)
            limits += [V[i] == 0 for i in np.flatnonzero(fix < 0)]
            cost += 0.5 * cp.sum_squares(root @ V) - cp.sum(cp.multiply(B, V))
            cost += cp.sum([0.5 * e[i] * cp.quad_over_lin(V[i], z[i]) for i in on])
        else:
            cost += 0.5 * cp.sum_squares(root @ (1 - z)) + (0.5 * e - B[:, 0]) @ (1 - z)
    return cp.Problem(cp.Minimize(cost), limits).solve(solver=cp.CLARABEL)


def fractions(A):
    """A float array as an object array of fractions."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(A, dtype=float))


def _solve_exactly(A, b):
    M = np.hstack([A, b[:, None]])
    for i in range(len(b)):
        M[i] = M[i] / M[i, i]
        for j in range(len(b)):
            if j != i:
                M[j] = M[j] - M[j, i] * M[i]
    return M[:, -1]


def exact_value(problem, row, pruned):
    """A row's cost in rational arithmetic, from the floats that the problem is made of."""
    H, w = fractions(problem.hessian.dense(row)), fractions(problem.W[row])
    P, S = np.flatnonzero(pruned), np.flatnonzero(~pruned)
    if not problem.refit:
        g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[row])
        return w[P] @ H[np.ix_(P, P)] @ w[P] / 2 - g[P] @ w[P]
    D = -w
    D[S] = _solve_exactly(H[np.ix_(S, S)], H[np.ix_(S, P)] @ w[P]) if len(S) and len(P) else 0
    return D @ H @ D / 2


def unbalanced_row(seed, refit, spread, n=5):
    """A problem of one row whose inputs differ by orders of magnitude, so that sums cancel."""
    rng = np.random.default_rng(seed)
    size = np.exp(spread * rng.standard_normal(n))
    H = gram(rng, n, damping=1e-2) * np.outer(size, size)
    W = rng.standard_normal((1, n)) / size
    G = None if refit else rng.standard_normal((1, n)) / size
    prune = Budget.per_row(int(rng.integers(1, n)))
    return SubsetProblem(W, 0.5 * (H + H.T), prune, refit=refit, gradient=G)


def digits_rows(rows, inputs, prune):
    """Rows of a linear layer over the brightest pixels of the digits, fitted by least squares."""
    data = load_digits()
    X = data.data / 16.0
    X = X[:, np.sort(np.argsort(-X.std(axis=0))[:inputs])]
    H = X.T @ X / len(X)
    H += 1e-2 * np.trace(H) / inputs * np.eye(inputs)
    Y = np.eye(10)[data.target][:, :rows]
    W = np.linalg.solve(H, X.T @ (Y - 0.1) / len(X)).T
    return SubsetProblem(W, H, Budget.per_row(prune))


def semidefinite_bound(block):
    """The bound of a block's best split, as the semidefinite programme that it is the dual of.

    Of one curvature; decisions of several rows share z and the split: `X >= sum_c x_c x_c'`.
    """
    n, (H,), (B,) = block.n, block.H, block.B
    columns = B.shape[1]
    X, x, z = cp.Variable((n, n), symmetric=True), cp.Variable((n, columns)), cp.Variable(n)
    moments = cp.bmat([[X, x], [x.T, np.eye(columns)]])
    limits = [moments >> 0, z >= 0, z <= 1]
    limits += [cp.sum(z[block.labels == p]) == k for p, k in enumerate(block.keep)]
    if block.refit:
        limits += [cp.quad_over_lin(x[i], z[i]) <= X[i, i] for i in range(n)]
    else:
        limits += [cp.diag(X) == x[:, 0], x[:, 0] == 1 - z]
    programme = cp.Problem(cp.Minimize(0.5 * cp.trace(H @ X) - cp.sum(cp.multiply(B, x))), limits)
    return programme.solve(solver=cp.CLARABEL) + (block.constant if block.refit else 0.0)
