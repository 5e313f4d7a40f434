"""One row of decisions and everything a lower bound needs of it, each number with a bound on its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.checker.problem import Problem
from solvers.checker.reduced import Reduced, interval
from solvers.checker.rounding import SAFE, TINY, UNIT, Array, dot, product, up
from solvers.checker.semidefinite import semidefinite


@dataclass(frozen=True)
class Piece:
    """A row of decisions, or the one that all rows share.

    Joint: keeping the set S costs `constant - 1/2 sum b_S' H_SS^-1 b_S`, summed over g curvatures, each with
    c right-hand sides `b = H w - gradient`, and with `constant = sum 1/2 w'Hw - gradient.w + offset`.
    Selection: pruning the set x costs `constant + 1/2 x'H x - b'x` with `H = sum_r diag(w_r) H_r diag(w_r)`,
    `b = sum_r gradient_r o w_r` and the offset for a constant.

    Attributes:
        refit: joint, or selection.
        rows: the problem's rows that follow these decisions.
        H: `[g, n, n]`.
        H_error: `[g, n, n]`.
        b: `[g, n, c]`.
        b_error: `[g, n, c]`.
        constant: a lower bound on it.
        floor: what no decisions cost less than, by signs alone: zero without a gradient, if the curvature
            is positive semidefinite. (Joint: that follows from a checked split.)
        sizes: `[pools]` decisions in each of some pools, which follow one another.
        prune: `[pools]` of them to prune.
    """

    refit: bool
    rows: NDArray[np.int64]
    H: Array
    H_error: Array
    b: Array
    b_error: Array
    constant: float
    floor: float
    sizes: NDArray[np.int64]
    prune: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of decisions."""
        return int(self.H.shape[1])

    @property
    def keep(self) -> NDArray[np.int64]:
        """`[pools]` decisions to keep."""
        return self.sizes - self.prune

    @property
    def places(self) -> NDArray[np.int64]:
        """`[pools, width]` the decisions of every pool; n, which is none, where a pool has no more."""
        rank = np.arange(self.sizes.max())
        first = np.cumsum(self.sizes) - self.sizes
        return np.where(rank < self.sizes[:, None], first[:, None] + rank, self.n)

    def check_split(self, d: Array, root: NDArray[np.int8]) -> str | None:
        """What is wrong with a split, or None.

        On the entries that it does not assume pruned (joint) or assumes nothing of (selection),
        `H_g - diag(d_g)` has to be positive semidefinite, and d positive when joint.

        Args:
            d: `[g, n]`.
            root: `[n]` the fixings that it assumes: 1 kept, -1 pruned, 0 free.
        """
        if (np.abs(root) > 1).any():
            return "assumes a fixing that is none"
        alive = np.flatnonzero(root >= 0 if self.refit else root == 0)
        if self.refit and not (d[:, alive] > 0).all():
            return "holds a number that is not positive"
        if not np.isfinite(d[:, alive]).all():
            return "holds a number that is not finite"
        block, index = np.ix_(alive, alive), np.diag_indices(len(alive))
        for H, error, part in zip(self.H, self.H_error, d, strict=True) if len(alive) else ():
            R, slack = H[block], error[block]
            R[index] -= part[alive]
            slack[index] = up(slack[index] + UNIT * np.abs(R[index]))
            if reason := semidefinite(R, slack):
                return f"leaves a remainder not shown to be positive semidefinite: {reason}"
        return None


def make_piece(
    problem: Problem, reduced: Reduced, rows: NDArray[np.int64], prune: NDArray[np.int64]
) -> Piece:
    """The piece of some rows that share their decisions."""
    shared, sizes = len(reduced.H) == 1, problem.pools()[0]
    bottom, free = 0.0, problem.gradient is None
    if len(problem.movable) and not free:
        bottom, _ = interval(np.ones(len(rows)), reduced.offset[rows], reduced.offset_error[rows])
    mine = slice(0, 1) if shared else rows
    if not problem.refit:
        A, A_error = _selection(reduced, rows)
        c, c_error = dot(reduced.W[rows], reduced.G[rows], reduced.G_error[rows], (0,))
        idle = bottom if not reduced.W[rows].any() else -np.inf
        floor = 0.0 if free and reduced.positive else idle
        return Piece(
            False,
            rows,
            A[None],
            A_error[None],
            c[None, :, None],
            c_error[None, :, None],
            bottom,
            floor,
            sizes,
            prune,
        )
    product_, error = (part[rows] for part in reduced.linear)
    W, G, G_error = reduced.W[rows], reduced.G[rows], reduced.G_error[rows]
    b = product_ - G
    b_error = up(SAFE * (error + G_error + UNIT * np.abs(b)))
    half = 0.5 * product_ - G
    low, _ = interval(W, half, up(SAFE * (error + G_error + UNIT * np.abs(half))))
    constant = float(np.nextafter(low + bottom, -np.inf)) if bottom else low
    shape = (1, len(rows), -1) if shared else (len(rows), 1, -1)
    return Piece(
        True, rows, reduced.H[mine], reduced.H_error[mine],
        b.reshape(shape).swapaxes(1, 2), b_error.reshape(shape).swapaxes(1, 2),
        constant, 0.0 if free else -np.inf, sizes, prune,
    )  # fmt: skip


def _selection(reduced: Reduced, rows: NDArray[np.int64]) -> tuple[Array, Array]:
    """`sum_r diag(w_r) H_r diag(w_r)`: the curvature times the rows' products of weights, entry by entry."""
    shared = len(reduced.H) == 1
    A = A_error = np.zeros(reduced.H.shape[1:])
    for r in [rows] if shared else rows[:, None]:
        w = reduced.W[r]
        weight, weight_error = product(w.T, w)
        H, H_error = (part[0 if shared else int(r[0])] for part in (reduced.H, reduced.H_error))
        term = H * weight
        A = A + term
        slack = np.abs(H) * weight_error + H_error * (np.abs(weight) + weight_error)
        A_error = A_error + SAFE * (slack + UNIT * (np.abs(term) + np.abs(A)) + 4 * TINY)
    return A, up(SAFE * A_error)
