"""A block without its fixed entries, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.node.oracle import EPS
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.compiled import FLAGS, njit


class Part(NamedTuple):
    """A block, or what is left of one, as compiled code takes it.

    Attributes:
        refit: joint, or selection.
        H: `[g, n, n]`.
        B: `[g, n, c]`.
        constant: cost of keeping nothing (joint), or what fixed entries cost (selection).
        labels: `[n]` pool of every entry, never falling.
        keep: `[pools]` entries to keep.
    """

    refit: bool
    H: Array
    B: Array
    constant: float
    labels: NDArray[np.int64]
    keep: NDArray[np.int64]


def part_of(block: Block) -> Part:
    """All of a block."""
    H, B = np.ascontiguousarray(block.H), np.ascontiguousarray(block.B)
    return Part(block.refit, H, B, float(block.constant), block.labels, block.keep)


def elimination(block: Block, d: Array, enough: float) -> float:
    """What rounding in `restrict` can add to a bound.

    Elimination is backward stable: what comes out belongs to `H + E`, `|E_ij| <= c n eps (H_ii H_jj)^1/2`
    (Higham 2002, theorem 10.3), and moves the cost of a mask with weights x by at most `1/2 x'Ex`, where

        x'Ex <= c n eps (sum_i H_ii^1/2 |x_i|)^2 <= c n eps min(sum_i H_ii / d_i, tr H / lambda_min) x'Hx

    and `1/2 x'Hx <= constant`. Selection: sums of entries of A and c.

    Args:
        block: the block, of one curvature.
        d: `[n]` a valid split of it.
        enough: an answer this small need not be sharper.
    """
    unit = 8.0 * (block.n + 8) * EPS
    if not block.refit:
        return unit * block.scale
    diagonal = np.diagonal(block.H[0])
    slack = unit * float((diagonal / d).sum()) * block.constant
    if slack <= enough:
        return slack
    least = float(scipy.linalg.eigvalsh(block.H[0], subset_by_index=[0, 0])[0])
    return min(slack, unit * float(diagonal.sum()) / max(least, 1e-300) * block.constant)


@njit(cache=True, nogil=True, fastmath=FLAGS)
def restrict(part, fix):
    """What is left of a block when some entries are fixed: `(free, part)`.

    Joint: pruned entries leave, and kept ones are eliminated by a Schur complement,
    `H_FF - H_FK H_KK^-1 H_KF`, `b_F - H_FK H_KK^-1 b_K`, `constant - 1/2 b_K' H_KK^-1 b_K`.
    Selection: kept entries leave, and pruned ones become `c_F - A_FP 1` and a constant.
    """
    refit, H, B, constant, labels, keep = part
    groups, n, columns = B.shape
    free = np.flatnonzero(fix == 0)
    f = len(free)
    gone = np.flatnonzero(fix > 0) if refit else np.flatnonzero(fix < 0)
    need = keep.copy()
    for i in range(n):
        if fix[i] > 0:
            need[labels[i]] -= 1
    smaller = np.empty((groups, f, f))
    right = np.empty((groups, f, columns))
    rest = constant
    for g in range(groups):
        if refit:
            order = np.concatenate((gone, free))
            a = len(order)
            A = np.empty((a, a + columns))
            for i in range(a):
                for j in range(a):
                    A[i, j] = H[g, order[i], order[j]]
                for c in range(columns):
                    A[i, a + c] = B[g, order[i], c]
            for k in range(len(gone)):
                pivot = 1.0 / A[k, k]
                for c in range(columns):
                    rest -= 0.5 * A[k, a + c] * A[k, a + c] * pivot
                for i in range(k + 1, a):
                    share = A[k, i] * pivot
                    if share != 0.0:
                        for j in range(i, a + columns):
                            A[i, j] -= share * A[k, j]
            start = len(gone)
            for i in range(f):
                for j in range(i, f):
                    smaller[g, i, j] = A[start + i, start + j]
                    smaller[g, j, i] = A[start + i, start + j]
                for c in range(columns):
                    right[g, i, c] = A[start + i, a + c]
        else:
            for i in range(f):
                for j in range(f):
                    smaller[g, i, j] = H[g, free[i], free[j]]
                right[g, i, 0] = B[g, free[i], 0]
                for j in gone:
                    right[g, i, 0] -= H[g, free[i], j]
            for i in gone:
                rest -= B[g, i, 0]
                for j in gone:
                    rest += 0.5 * H[g, i, j]
    return free, Part(refit, smaller, right, rest, labels[free], need)
