"""Small problems, and slow answers to them by other means, that the tests of package solvers share."""

import itertools

import numpy as np

from solvers import Budget, FactorHessian, SubsetProblem

BUDGETS = {
    "per_row": Budget.per_row(3),
    "row_counts": Budget.per_row([1, 5]),
    "per_layer": Budget.per_layer(5),
    "n_of_m": Budget.n_of_m(1, 3),
    "columns": Budget.columns(3),
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
    return min(problem.value(mask) for mask in all_masks(problem))
