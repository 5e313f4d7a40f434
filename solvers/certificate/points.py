"""What points and splits contribute to a bound, in floating point with margins, before fixings are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.secure import secure
from solvers.certificate.proof import Proof
from solvers.form.blocks import Block
from solvers.hessian import Array

SHARE = 1e-7
"""Share of the first split that kept entries get, and what a bound may lose by it."""

Roots = NDArray[np.int8]


def lift(d: Array, root: Roots) -> Array:
    """`[Q, g, n]` splits of what is left free, made splits of the kept entries too.

    Joint. If `S - diag(d_F)` is positive semidefinite for the Schur complement S of the kept entries K, so is
    `H - diag(d_F, 0)` on F and K; mixed with the first split `d_0`, as `(1 - a) (d_F, 0) + a d_0`, it stays
    so and is positive everywhere.

    Args:
        d: splits; the first assumes nothing, the others count only where their root is free.
        root: `[Q, n]` what each assumes.
    """
    assumed = (root != 0)[:, None, :]
    kept = (root > 0)[:, None, :]
    mixed = np.where(kept, 0.0, d) * (1.0 - SHARE) + SHARE * d[0]
    lifted = np.where(assumed.any(axis=2, keepdims=True), mixed, d)
    return np.where((root < 0)[:, None, :], d[0], lifted)


def secured(H: Array, d: Array, root: Roots, refit: bool, slack: Array | None = None) -> Array:
    """Splits shrunk until each is valid for certain on the entries that it has to be; see `Proof`.

    Args:
        H: `[g, n, n]`.
        d: `[Q, g, n]`.
        root: `[Q, n]` what each split assumes.
        refit: joint, or selection.
        slack: `[g, n, n]` how far H may be from what it stands for.

    Raises:
        ValueError: if H is too close to singular.
    """
    out = d.copy()
    for q in range(len(d)):
        alive = np.flatnonzero(asked(root[q], refit))
        for g in range(len(H)) if len(alive) else ():
            A = H[g][np.ix_(alive, alive)]
            if slack is not None:
                A = A - 2.0 * np.diag(slack[g][np.ix_(alive, alive)].sum(axis=1))
            out[q, g, alive] = secure(A, d[q, g, alive], refit)
    return out


def asked(root: Roots, refit: bool) -> NDArray[np.bool_]:
    """The entries on which a split that assumes `root` has to be valid."""
    return np.asarray(root >= 0 if refit else root == 0)


def completed(H: Array, B: Array, root: Roots, owner: NDArray[np.int32], u: Array) -> Array:
    """Joint points with the best of what their splits assume kept, and zero where it is pruned.

    The bound is greatest in `u_K` where `q_K = d_K u_K`, that is where `H_KK u_K = b_K - H_KF u_F`; with
    d near 0 the scores of kept entries then vanish.

    Args:
        H: `[g, n, n]`.
        B: `[g, n, c]`.
        root: `[Q, n]`.
        owner: `[V]` split of each point.
        u: `[V, g, n, c]`, float64.
    """
    out = np.where((root[owner] == 0)[:, None, :, None], u, 0.0)
    for q in np.unique(owner):
        kept = np.flatnonzero(root[q] > 0)
        mine = np.flatnonzero(owner == q)
        for g in range(len(H)) if len(kept) else ():
            rest = B[g][kept][None] - H[g][kept] @ out[mine, g]
            side = rest.transpose(1, 0, 2).reshape(len(kept), -1)
            found = np.linalg.solve(H[g][np.ix_(kept, kept)], side)
            part = found.reshape(len(kept), len(mine), -1).transpose(1, 0, 2)
            out[mine[:, None], g, kept[None, :]] = part
    return out


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
