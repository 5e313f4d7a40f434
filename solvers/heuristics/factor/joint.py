"""The joint variant on a factor: all survivors refitted by the kernel of Woodbury's identity."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from solvers.bounds.factor.image import Coordinates, Image, sketched
from solvers.hessian import Array
from solvers.hessian.base import CHUNK_BYTES
from solvers.heuristics.factor.row import FactorRow, Items
from solvers.heuristics.factor.selection import SelectionRow
from solvers.heuristics.rows.tableau import RowData
from solvers.problem import Mask

FRESH = 20
"""Changes of the kernel between two fresh ones: rounding gathers."""


class JointRow(FactorRow):
    """A row's pruned set P, its survivors S refitted.

    With `H = F'F + diag(e)` and `T = I + F_S diag(1/e_S) F_S'`, `[N, N]`,

        r = F_P w_P,  g = F'T^-1 r,  value = 1/2 r'T^-1 r + 1/2 sum over P of e w^2,  w^_S = w_S + g_S / e_S
        restoring i gains (g_i + e_i w_i)^2 / (2 (e_i + h_i)),  h_i = F_i'T^-1 F_i
        pruning j costs w^_j^2 e_j / (2 (1 - h_j / e_j))

    A window Q of columns is a dense problem of its own, all of `B = S - Q` refitted and the rest of P left
    pruned: its curvature is the Schur complement `diag(e_Q) + F_Q'T_B^-1 F_Q`.
    """

    def __init__(self, image: Image, pruned: Mask) -> None:
        self.image = image
        self._chunk = max(1, CHUNK_BYTES // (8 * len(image.b)))
        self.set(pruned)

    def set(self, pruned: Mask) -> None:
        """See `FactorRow.set`."""
        self.pruned, self._changes = pruned.copy(), 0
        self._T = np.eye(len(self.image.b))
        self._add(np.flatnonzero(~pruned), 1.0)
        self._fit()
        L = scipy.linalg.cholesky(self._T, lower=True)
        self._h = np.empty(len(pruned))
        for start in range(0, len(pruned), self._chunk):
            part = np.arange(start, min(start + self._chunk, len(pruned)))
            half = scipy.linalg.solve_triangular(L, self.image.hessian.root(part), lower=True)
            self._h[part] = np.einsum("ij,ij->j", half, half)

    def costs(self) -> Array:
        """See `FactorRow.costs`; of the survivors, `w^_j^2 / (2 (H_SS^-1)_jj)`."""
        w, e = self.image.w, self.image.ridge
        move = self._pull + e * w
        rest = np.maximum(e - self._h, np.finfo(float).tiny)
        return np.asarray(np.where(self.pruned, -(move**2) / (2.0 * (e + self._h)), move**2 / (2.0 * rest)))

    def data(self, window: Items) -> RowData:
        """The window's Schur complement, and its weights when nothing of it is pruned."""
        image, gone = self.image, self.pruned[window]
        w, e = image.w[window], image.ridge[window]
        F = image.hessian.root(window)
        kept = F[:, ~gone]
        base = self._T - (kept / e[~gone]) @ kept.T
        L = scipy.linalg.cholesky(base, lower=True, overwrite_a=True)
        half = scipy.linalg.solve_triangular(L, F, lower=True)
        H = half.T @ half
        H[np.diag_indices(len(window))] += e
        H.setflags(write=False)
        pull = F.T @ scipy.linalg.cho_solve((L, True), self._residual + kept @ w[~gone]) + e * w
        target = scipy.linalg.solve(H, pull, assume_a="pos")
        return RowData(True, H, target, np.zeros(len(window)), image.labels[window])

    def flip(self, changed: Items) -> None:
        """See `FactorRow.flip`: the kernel changes by the columns, h by Woodbury's identity."""
        self._changes += 1
        if self._changes == FRESH:
            pruned = self.pruned.copy()
            pruned[changed] = ~pruned[changed]
            self.set(pruned)
            return
        image, sign = self.image, np.where(self.pruned[changed], 1.0, -1.0)
        F = image.hessian.root(changed)
        U = scipy.linalg.cho_solve(scipy.linalg.cho_factor(self._T, lower=True), F)
        inner = F.T @ U + np.diag(sign * image.ridge[changed])
        across = image.hessian.pull_back(U.T)
        self._h = self._h - np.einsum("ci,ci->i", across, np.linalg.solve(inner, across))
        self._add(changed, sign)
        self.pruned[changed] = ~self.pruned[changed]
        self._fit()

    def _add(self, index: Items, sign: float | Array) -> None:
        """Columns enter the kernel, or leave it."""
        scale = np.broadcast_to(sign, index.shape) / self.image.ridge[index]
        for start in range(0, len(index), self._chunk):
            part = slice(start, start + self._chunk)
            F = self.image.hessian.root(index[part])
            self._T += (F * scale[part]) @ F.T

    def _fit(self) -> None:
        image = self.image
        lost = np.where(self.pruned, image.w, 0.0)
        self._residual = image.hessian.image(lost[None, :])[0]
        dual = scipy.linalg.cho_solve(scipy.linalg.cho_factor(self._T, lower=True), self._residual)
        self._pull = image.hessian.pull_back(dual[None, :])[0]
        self.value = 0.5 * (float(self._residual @ dual) + float(image.ridge @ lost**2))


def open_factor_row(image: Image, space: Coordinates, pruned: Mask) -> FactorRow:
    """A row at a mask `[n]`; joint ones are in a sketch where the space has not all directions.

    Args:
        image: the row.
        space: its directions.
        pruned: where to start.
    """
    if not image.refit:
        return SelectionRow(image, pruned)
    whole = space.Q.shape[1] == len(space.Q)
    return JointRow(image if whole else sketched(image, space), pruned)
