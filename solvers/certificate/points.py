"""What a point contributes to a bound, in floating point with margins, before a leaf's fixings are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.certificate.proof import Proof
from solvers.certificate.subtrees import completed
from solvers.form.blocks import Block
from solvers.hessian import Array


@dataclass(frozen=True)
class Terms:
    """The numbers of a bound, and how far each may be from what it stands for.

    Attributes:
        refit: joint, or selection.
        H: `[g, n, n]`.
        H_slack: `[g, n, n]`, or None for an exact H.
        B: `[g, n, c]`.
        B_slack: `[g, n, c]`.
        constant: at most the constant of the cost.
        floor: what no decisions cost less than.
        labels: `[n]` pool of every decision, counted from 0, never falling.
    """

    refit: bool
    H: Array
    H_slack: Array | None
    B: Array
    B_slack: Array
    constant: float
    floor: float
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, block: Block) -> Terms:
        """The terms of a block, with a priori bounds on the rounding of forming them from a problem."""
        gamma = rounding(block.n)
        if not block.refit:
            return cls(
                False, block.H, gamma * np.abs(block.H), block.B, gamma * np.abs(block.B),
                0.0, block.floor, block.labels,
            )  # fmt: skip
        size = np.abs(block.H) @ np.abs(block.W)
        constant = block.constant - gamma * float((np.abs(block.W) * size).sum())
        return cls(True, block.H, None, block.B, gamma * size, constant, block.floor, block.labels)


def points(terms: Terms, proof: Proof, some: slice) -> tuple[Array, Array]:
    """Each vector's part of the bound: `base [V]` from below, `score [V, n]` on the pessimistic side.

    As in `solvers.bounds.evaluate.lower_bound`, for many vectors at once. What a vector's split assumes is
    completed (joint), or goes into constant and linear terms (selection): `-b` becomes `A 1_P - b` and the
    constant `1/2 1_P'A 1_P - b'1_P`.
    """
    owner, root = proof.owner[some], proof.roots
    u = proof.u[some].astype(np.float64)
    d, assumed = proof.splits[owner], root[owner]
    if terms.refit:
        u = completed(terms.H, terms.B, root, owner, u)
        return _joint_points(terms, np.where((assumed < 0)[:, None], 1.0, d), u)
    free = assumed == 0
    base, score = _selection_points(
        terms, np.where(free, d[:, 0], 0.0), np.where(free, u[:, 0, :, 0], 0.0), assumed
    )
    return base, np.where(free, score, 0.0)


def _joint_points(terms: Terms, d: Array, u: Array) -> tuple[Array, Array]:
    count, g, n, c = u.shape
    gamma = rounding(n * c)
    base, score = np.full(count, terms.constant), np.zeros((count, n))
    for i in range(g):
        y, error, point = _image(terms, i, d[:, i], u[:, i])
        base -= 0.5 * ((point * y).sum(axis=(0, 2)) + 2.0 * (np.abs(point) * error).sum(axis=(0, 2)))
        q = np.abs(terms.B[i][:, None, :] - y) + error + terms.B_slack[i][:, None, :]
        score += (1.0 + gamma) * (q * q).sum(axis=2).T / (2.0 * d[:, i])
    return base, score


def _selection_points(terms: Terms, d: Array, u: Array, assumed: NDArray[np.int8]) -> tuple[Array, Array]:
    gamma = rounding(terms.H.shape[1])
    y, error, point = (part[:, :, 0] for part in _image(terms, 0, d, u[:, :, None]))
    ones = (assumed < 0).astype(np.float64).T
    pull, size = terms.H[0] @ ones, np.abs(terms.H[0]) @ ones
    c, c_slack = terms.B[0], terms.B_slack[0]
    slack = gamma * size if terms.H_slack is None else gamma * size + terms.H_slack[0] @ ones
    constant = terms.constant + (
        ones * (0.5 * pull - c - (1.0 + gamma) * (slack + c_slack + gamma * np.abs(c)))
    ).sum(axis=0)
    base = constant - 0.5 * ((point * y).sum(axis=0) + 2.0 * (np.abs(point) * error).sum(axis=0))
    t = y + 0.5 * d.T + pull - c
    return base, (t - error - slack - c_slack - gamma * (np.abs(d.T) + np.abs(c) + np.abs(t))).T


def _image(terms: Terms, i: int, d: Array, u: Array) -> tuple[Array, Array, Array]:
    """`(H_i - diag(d)) u`, how far it may be off, and u: all `[n, V, c]`, for `d [V, n]`, `u [V, n, c]`."""
    count, n, c = u.shape
    point = u.transpose(1, 0, 2)
    flat = point.reshape(n, count * c)
    move = (d.T[:, :, None] * point).reshape(n, count * c)
    error = rounding(n) * (np.abs(terms.H[i]) @ np.abs(flat) + np.abs(move))
    if terms.H_slack is not None:
        error += terms.H_slack[i] @ np.abs(flat)
    y = terms.H[i] @ flat - move
    return y.reshape(n, count, c), error.reshape(n, count, c), point


def rounding(n: int) -> float:
    """Rounding of sums of n products, several times over: the checker has to round too."""
    return 4.0 * (n + 8) * float(np.finfo(float).eps)


def rounded(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors in single precision, if their largest entries have room there; else as they are."""
    largest = np.abs(u).reshape(len(u), -1).max(axis=1, initial=0.0)
    narrow = ((largest == 0.0) | ((largest > 2.0**-80) & (largest < 2.0**120))).all()
    return np.asarray(u, dtype=np.float32 if narrow else np.float64)
