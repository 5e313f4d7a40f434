"""Random instances, and instances whose optimum is known because it was put there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from solvers.budget import Budget, Pools
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem


@dataclass(frozen=True)
class Planted:
    """An instance with its optimum.

    Attributes:
        problem: the instance.
        mask: `[m, n]` an optimal mask.
        value: the optimum, `problem.value(mask)`.
    """

    problem: SubsetProblem
    mask: Mask = field(repr=False)
    value: float


def random_problem(
    m: int,
    n: int,
    budget: Budget,
    *,
    seed: int,
    refit: bool = True,
    correlation: float = 0.7,
    damping: float = 1e-2,
    per_row: bool = False,
) -> SubsetProblem:
    """A layer with correlated inputs: `H = X'X / N + damping * mean(diag) I` of `N = 4n` samples.

    Inputs share `ceil(n / 8)` hidden causes: `x = sqrt(correlation) L z + sqrt(1 - correlation) e`
    with standard normal `z`, `e` and unit rows `L`; each input has a scale between 1/2 and 2.

    Args:
        m: rows.
        n: inputs.
        budget: how many to prune, in which pools.
        seed: of every draw; the same seed gives the same instance.
        refit: joint variant, or selection.
        correlation: share of an input's variance that hidden causes explain, from 0 to below 1.
        damping: relative to the mean diagonal, positive.
        per_row: give every row a curvature of its own, `[m, n, n]`.

    Raises:
        ValueError: for a correlation or damping out of range, or a budget that can't be met.
    """
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation must be at least 0 and below 1, got {correlation!r}")
    if not 0 < damping < np.inf:
        raise ValueError(f"damping must be a finite number above 0, got {damping!r}")
    rng = np.random.default_rng(seed)
    hessians = [_gram(rng, n, correlation, damping) for _ in range(m if per_row else 1)]
    W = rng.standard_normal((m, n))
    return SubsetProblem(W, np.stack(hessians) if per_row else hessians[0], budget, refit=refit)


def planted(
    m: int,
    n: int,
    budget: Budget,
    *,
    seed: int,
    refit: bool = True,
    margin: float = 0.9,
    rank: int | None = None,
) -> Planted:
    """A dense instance whose optimum is known, for any size, budget and variant.

    The optimum is put where the split bound is tight. `H = R + diag(d)` with `R >= 0`, and for every
    vector u the following bounds from below the cost of every mask (`S` kept, `P` pruned).

    *Joint.* With `q = H w - R u`: `LB(u) = 1/2 w'Hw - 1/2 u'Ru - sum over the top scores
    q_i^2 / (2 d_i) of each pool`. Draw R, d > 0, a mask, and u with `u_P = 0`. Set `q_S = d_S u_S`, and
    q_P so that the scores in P are at most `margin` times the least in S of their pool; solve
    `H w = q + R u` for w. Then the top scores are S's, and `LB(u) = 1/2 w'Hw - 1/2 u'Hu`. The survivors'
    best values solve `H_SS v = (H w)_S = d_S u_S + R_SS u_S`, so `v = u`, and the mask costs
    `1/2 w'Hw - 1/2 u'Hu` too. No mask costs less than `LB(u)`: the mask is optimal.

    *Selection.* With `A = diag(w) H diag(w) = R + diag(d)` and `t = R u + d/2`: `LB(u) = -1/2 u'Ru + sum of
    the smallest t of each pool`. Draw R, w and the mask x (1 where pruned); choose `d >= 0` so that at
    `u = x` every t in P lies below a threshold and every t in S above it. Then
    `LB(x) = -1/2 x'Rx + x'(Rx + d/2) = 1/2 x'Ax`, the mask's cost. Each row has a curvature of its own.

    The value of `margin` sets how nearly other masks tie; the split that proves the optimum is not
    stored.

    Args:
        m: rows.
        n: inputs.
        budget: how many to prune, in which pools.
        seed: of every draw.
        refit: joint variant, or selection.
        margin: above 0 and at most 1; near 1 the second-best masks are close.
        rank: of `R`, by default `ceil(n / 8)`.

    Raises:
        ValueError: for a margin or rank out of range, or a budget that can't be met.
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin must be above 0 and at most 1, got {margin!r}")
    rank = -(-n // 8) if rank is None else rank
    if not 1 <= rank <= n:
        raise ValueError(f"rank must be from 1 to {n}, got {rank!r}")
    rng = np.random.default_rng(seed)
    pools = budget.laid_over(m, n)
    decisions = pools.smallest(rng.random(pools.labels.shape))
    mask = pools.expand(decisions, m)
    make = _planted_joint if refit else _planted_selection
    W, H = make(rng, mask, decisions, pools, margin, rank)
    problem = SubsetProblem(W, H, budget, refit=refit)
    return Planted(problem, mask, problem.value(mask))


def _planted_joint(
    rng: np.random.Generator, mask: Mask, decisions: Mask, pools: Pools, margin: float, rank: int
) -> tuple[Array, Array]:
    m, n = mask.shape
    R = _semidefinite(rng, n, rank)
    d = np.exp(rng.uniform(np.log(0.03), 0.0, n))
    q = rng.choice([-1.0, 1.0], (m, n)) * np.sqrt(2 * d * rng.uniform(1.0, 4.0, (m, n)))
    u = np.where(mask, 0.0, q / d)
    scores = q**2 / (2 * d)
    if pools.coupled:
        scores = scores.sum(axis=0, keepdims=True)
    shrink = np.ones(pools.labels.shape)
    for p in range(len(pools.prune)):
        kept, gone = (pools.labels == p) & ~decisions, (pools.labels == p) & decisions
        if kept.any() and gone.any():
            shrink[gone] = np.sqrt(np.minimum(1.0, margin * scores[kept].min() / scores[gone]))
    q *= shrink
    H = R + np.diag(d)
    W = np.asarray(np.linalg.solve(H, (q + u @ R).T).T, dtype=np.float64)
    return W, H


def _planted_selection(
    rng: np.random.Generator, mask: Mask, decisions: Mask, pools: Pools, margin: float, rank: int
) -> tuple[Array, Array]:
    m, n = mask.shape
    W = rng.choice([-1.0, 1.0], (m, n)) * rng.uniform(0.5, 1.5, (m, n))
    R = np.stack([_semidefinite(rng, n, rank) for _ in range(m)])
    pull = np.einsum("rij,rj->ri", R, mask.astype(np.float64))
    slack = (1 - margin) * rng.uniform(0.5, 1.0, (m, n))
    threshold = float(pull[mask].max(initial=0.0)) + 1.0
    d = 2 * np.where(mask, threshold - slack - pull, np.maximum(0.0, threshold + slack - pull))
    A = R + np.einsum("ri,ij->rij", d, np.eye(n))
    H = A / (W[:, :, None] * W[:, None, :])
    return W, H[0] if m == 1 else H


def _gram(rng: np.random.Generator, n: int, correlation: float, damping: float) -> Array:
    causes = -(-n // 8)
    L = rng.standard_normal((n, causes))
    L /= np.linalg.norm(L, axis=1, keepdims=True)
    z, e = rng.standard_normal((4 * n, causes)), rng.standard_normal((4 * n, n))
    X = (np.sqrt(correlation) * z @ L.T + np.sqrt(1 - correlation) * e) * rng.uniform(0.5, 2.0, n)
    H: NDArray[np.float64] = X.T @ X / len(X)
    H += damping * np.trace(H) / n * np.eye(n)
    return H


def _semidefinite(rng: np.random.Generator, n: int, rank: int) -> Array:
    B = rng.standard_normal((n, rank))
    return np.asarray(B @ B.T / rank)
