"""Optimal Brain Surgeon on factors that are never formed: one weight at a time, in blocks checked afterwards.

Taking one weight and looking at all others again is a product of a matrix and a vector, which waits for
memory. A block does many at once: it eliminates among the cheapest few, one at a time, and then looks at
what all others cost at each of its steps. Where one of these was cheaper, the block ends before that step
(speculative execution). So what goes, and in which order, is what single steps would have taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.factor.image import Image, images
from solvers.greedy.elimination import BLOCK, eliminate
from solvers.hessian import Array
from solvers.hessian.base import CHUNK_BYTES
from solvers.problem import Mask, SubsetProblem

STEPS = 64
"""Eliminations of a block at most."""
CANDIDATES = 512
"""Entries among which a block eliminates."""


def surgeon_mask(problem: SubsetProblem, stopped: Callable[[], object] = lambda: None) -> Mask:
    """The mask `[m, n]` of OBS on a joint problem whose curvature is a factor with damping.

    The next weight is that of least `w_q^2 / (2 [H^-1]_qq)`, H of what is left, all weights of it moved to
    make up for those before (Hassibi & Stork 1992). O(N n) a weight for N samples.

    Args:
        problem: reduced, joint.
        stopped: polled between blocks; a true answer has the rest pruned by its costs at once.
    """
    found = [_eliminated(image, stopped) for image in images(problem)]
    return np.concatenate(found).reshape(problem.W.shape)


def _eliminated(image: Image, stopped: Callable[[], object]) -> Mask:
    room = np.bincount(image.labels, minlength=len(image.take)) - image.take
    row = _Left(image, np.arange(len(image.w)))
    while room.sum():
        open_ = np.flatnonzero(row.alive & (room[row.labels] > 0))
        costs = row.w[open_] ** 2 / row.diagonal[open_]
        if stopped():
            row.alive[_cheapest(open_[np.argsort(costs, kind="stable")], row.labels, room)] = False
            break
        taken = row.step(open_[np.argsort(costs, kind="stable")[:CANDIDATES]], room)
        room -= np.bincount(row.labels[taken], minlength=len(room))
        if 2 * np.count_nonzero(row.alive) < len(row.alive):
            row = _Left(image, row.index[row.alive])
    pruned = np.ones(len(image.w), dtype=bool)
    pruned[row.index[row.alive]] = False
    return pruned


def _cheapest(order: NDArray[np.int64], labels: NDArray[np.int64], room: NDArray[np.int64]) -> Array:
    """The first of an order, as many of every pool as there is room for."""
    by_pool = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[by_pool], minlength=len(room))
    rank = np.arange(len(by_pool)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(by_pool[rank < room[labels[by_pool]]])


class _Left:
    """What is left of a row, its inverse curvature `C = D - D F' A F D`, `A = (I + F D F')^-1`, `D = 1/e`.

    F are the columns that were left when it was made; of those taken since only `alive` tells.

    Attributes:
        index: `[k]` entries of the row.
        alive: `[k]` whether they are left.
        w: `[k]` their weights, moved.
        diagonal: `[k]` of C.
        labels: `[k]` their pools.
    """

    def __init__(self, image: Image, index: NDArray[np.int64]) -> None:
        self.index, self.labels = index, image.labels[index]
        self.alive = np.ones(len(index), dtype=bool)
        lost = image.w.copy()
        lost[index] = 0.0
        residual = image.hessian.image(lost[None, :])[0]
        self._hessian = image.hessian if len(index) == image.hessian.n else image.hessian.select(index)
        self._scale = 1.0 / image.ridge[index]
        T = np.eye(len(residual))
        for part in self._parts():
            F = self._hessian.root(part)
            T += (F * self._scale[part]) @ F.T
        L = scipy.linalg.cholesky(T, lower=True, overwrite_a=True)
        self._A = scipy.linalg.cho_solve((L, True), np.eye(len(residual)))
        pull = self._hessian.pull_back((self._A @ residual)[None, :])[0]
        self.w = image.w[index] + self._scale * pull
        self.diagonal = np.empty(len(index))
        for part in self._parts():
            F = self._hessian.root(part)
            self.diagonal[part] = np.einsum("sq,sq->q", F, self._A @ F)
        self.diagonal = self._scale - self._scale**2 * self.diagonal

    def step(self, candidates: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take a block of entries; those that are taken, in order.

        Args:
            candidates: `[c]` places among which it eliminates, the cheapest of what may go first.
            room: `[pools]` how many may still go.
        """
        F, D = self._hessian.root(candidates), self._scale[candidates]
        C = -((F.T @ (self._A @ F)) * D) * D[:, None]
        C[np.diag_indices(len(C))] += D
        order, values = np.empty(len(C), np.int64), np.zeros(len(C) + 1)
        count = eliminate(
            C.copy(),
            self.w[candidates],
            BLOCK,
            self.labels[candidates],
            np.minimum(room, STEPS),
            order,
            values,
        )
        order = order[: min(count, STEPS)]
        taken = candidates[order]
        L = scipy.linalg.cholesky(C[np.ix_(order, order)], lower=True)
        Y = self._A @ (F[:, order] * D[order])
        across = -self._scale * self._hessian.pull_back(Y.T)
        across[np.arange(len(taken)), taken] += D[order]
        V = scipy.linalg.solve_triangular(L, across, lower=True)
        z = scipy.linalg.solve_triangular(L, self.w[taken], lower=True)
        steps = self._right(V, z, candidates, taken, room)
        V, z, taken = V[:steps], z[:steps], taken[:steps]
        self.w = self.w - z @ V
        self.diagonal = np.maximum(self.diagonal - np.einsum("tj,tj->j", V, V), np.finfo(float).tiny)
        self.alive[taken] = False
        half = scipy.linalg.solve_triangular(L[:steps, :steps], Y[:, :steps].T, lower=True)
        self._A += half.T @ half
        return taken

    def _right(
        self,
        V: Array,
        z: Array,
        candidates: NDArray[np.int64],
        taken: NDArray[np.int64],
        room: NDArray[np.int64],
    ) -> int:
        """Steps before the first at which another than the candidates was cheaper."""
        others = self.alive.copy()
        others[candidates] = False
        w, diagonal, left = self.w.copy(), self.diagonal.copy(), room.copy()
        for t in range(len(taken)):
            able = others & (left[self.labels] > 0)
            if t and able.any() and (w[able] ** 2 < z[t] ** 2 * diagonal[able]).any():
                return t
            w -= z[t] * V[t]
            diagonal -= V[t] ** 2
            left[self.labels[taken[t]]] -= 1
        return len(taken)

    def _parts(self) -> list[NDArray[np.int64]]:
        size = max(1, CHUNK_BYTES // (8 * self._hessian.N))
        return [np.arange(a, min(a + size, len(self.index))) for a in range(0, len(self.index), size)]
