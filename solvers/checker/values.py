"""What a mask costs: an interval that holds it for certain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.checker.problem import Problem
from solvers.checker.reduced import Reduced
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, down, sum_error, up

REFINEMENTS = 2


def budget_violation(problem: Problem, mask: NDArray[np.bool_], *, counted: bool = True) -> str | None:
    """What is wrong with a mask `[m, n]`, in words, or None.

    Args:
        problem: whose budget it should meet.
        mask: True where pruned.
        counted: whether a budget of the layer is its own, or shared with other problems.
    """
    if mask[:, problem.movable].any():
        return "prunes a movable column"
    if problem.kind == "per_layer":
        got, want = int(mask.sum()), int(problem.counts[0])
        return f"prunes {got} weights, not {want}" if counted and got != want else None
    if problem.shared and (mask != mask[:1]).any():
        return "has rows that differ, where whole columns are pruned"
    sizes, prune = problem.pools()
    first = np.cumsum(sizes) - sizes
    pruned = np.add.reduceat(mask[: len(prune), problem.prunable].astype(np.int64), first, axis=1)
    wrong = np.argwhere(pruned != prune).tolist()
    if not wrong:
        return None
    row, pool = wrong[0]
    return f"prunes {pruned[row, pool]} in pool {pool} of row {row}, not {prune[row, pool]}"


def row_values(
    problem: Problem, reduced: Reduced, mask: NDArray[np.bool_], d: Array
) -> tuple[Array, Array, Array]:
    """`[m]` lower and upper ends of every row's cost, and the size of the terms that it sums.

    Joint: any move D of the survivors S costs at least the optimum, and by
    `cost(D) - optimum = 1/2 r' H_SS^-1 r` for the residual `r = (H D + g)_S` at most `sum r_i^2 / (2 d_i)`
    more, as `H - diag(d)` is positive semidefinite. D comes from floating point, and is refined.

    Args:
        problem: the problem.
        reduced: without its movable columns.
        mask: `[m, n]` over all columns.
        d: `[m, n]` a split of every row that has been checked; unused in a selection.
    """
    P = mask[:, problem.prunable]
    D = np.where(P, -reduced.W, 0.0)
    if problem.refit:
        for _ in range(1 + REFINEMENTS):
            HD, _ = reduced.times(D)
            _correct(reduced, P, D, HD + reduced.G)
    HD, error = reduced.times(D)
    half = 0.5 * HD + reduced.G
    error = up(SAFE * (error + reduced.G_error + UNIT * np.abs(half)) + TINY)
    mid, slack = dot(D, half, error, (1,))
    mid_total = mid + reduced.offset
    slack = up(SAFE * (slack + reduced.offset_error + UNIT * np.abs(mid_total)))
    low, high = down(mid_total - slack), up(mid_total + slack)
    size = np.abs(D * half).sum(axis=1) + np.abs(reduced.offset)
    if problem.refit:
        residual = np.where(P, 0.0, up(np.abs(HD + reduced.G) * SAFE + SAFE * (error + UNIT * np.abs(HD))))
        terms = up(up(residual / down(np.sqrt(2.0 * d))) ** 2)
        total = terms.sum(axis=1)
        low = down(low - up(total + sum_error(problem.n, total)))
    return low, high, size


def _correct(reduced: Reduced, P: NDArray[np.bool_], D: Array, pull: Array) -> None:
    """One step of iterative refinement of every row's survivors, in place: any move has a valid interval."""
    groups: dict[bytes, list[int]] = {}
    for r, pruned in enumerate(P):
        key = pruned.tobytes() + (b"" if len(reduced.H) == 1 else r.to_bytes(8, "little"))
        groups.setdefault(key, []).append(r)
    for rows in groups.values():
        kept = np.flatnonzero(~P[rows[0]])
        if len(kept):
            H = reduced.H[0 if len(reduced.H) == 1 else rows[0]][np.ix_(kept, kept)]
            where = np.ix_(np.array(rows), kept)
            try:
                D[where] -= np.linalg.solve(H, pull[where].T).T
            except np.linalg.LinAlgError:
                continue
