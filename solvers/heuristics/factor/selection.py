"""The selection variant on a factor: pulls from a residual, in `O(n + N)` memory beside the factor."""

from __future__ import annotations

import numpy as np

from solvers.bounds.factor.image import Coordinates, Image
from solvers.hessian import Array
from solvers.heuristics.factor.row import FactorRow, Items, disjoint
from solvers.heuristics.rows.tableau import RowData
from solvers.problem import Mask

NEAR = 4096
"""Entries of either side whose swaps are looked at pair by pair."""
SKETCH = 256
"""Directions of the image in which such a look is taken."""
STRIPE = 512
"""Entries of one side that it takes at a time."""


class SelectionRow(FactorRow):
    """A row's pruned set x with cost `1/2 |r|^2 + (1/2 e o w^2 - c).x`, `r = F (w o x)`.

    One product with r gives all pulls `a = A x - c`, `A = diag(w) H diag(w)` with `H = F'F + diag(e)`.
    """

    def __init__(self, image: Image, pruned: Mask) -> None:
        self.image = image
        self._diagonal = image.hessian.diagonal() * image.w**2
        self._fixed = image.ridge * image.w**2
        self.set(pruned)

    def set(self, pruned: Mask) -> None:
        """See `FactorRow.set`."""
        self.pruned = pruned.copy()
        self._residual = self.image.hessian.image(np.where(pruned, self.image.w, 0.0)[None, :])[0]
        self._pull()

    def costs(self) -> Array:
        """`A_ii / 2 - a_i` of the pruned, `A_ii / 2 + a_i` of the others."""
        return np.asarray(0.5 * self._diagonal + np.where(self.pruned, -self._pulls, self._pulls))

    def data(self, window: Items) -> RowData:
        """`1/2 x'A_QQ x - c~.x` with `c~ = A_QQ x - a_Q` at the present x."""
        w = self.image.w[window]
        A = w[:, None] * self.image.hessian.block(0, window) * w
        A.setflags(write=False)
        linear = A @ self.pruned[window] - self._pulls[window]
        return RowData(False, A, np.ones(len(window)), linear, self.image.labels[window])

    def flip(self, changed: Items) -> None:
        """See `FactorRow.flip`."""
        step = np.zeros_like(self.image.w)
        step[changed] = np.where(self.pruned[changed], -self.image.w[changed], self.image.w[changed])
        self.pruned[changed] = ~self.pruned[changed]
        self._residual = self._residual + self.image.hessian.image(step[None, :])[0]
        self._pull()

    def pairs(self, space: Coordinates, margin: Array, size: int) -> Items:
        """A window of disjoint pairs whose swaps gain most, of all swaps between entries of small margin.

        Args:
            space: directions in which `A_ij` of a pair is estimated.
            margin: `[n]` how far an entry is from changing sides in the relaxation.
            size: of the window.
        """
        costs = self.costs()
        sides = [np.flatnonzero(self.pruned), np.flatnonzero(~self.pruned)]
        leaving, entering = (side[np.argsort(margin[side], kind="stable")[:NEAR]] for side in sides)
        Y = (space.Z[leaving, :SKETCH] * self.image.w[leaving, None]).astype(np.float32)
        best, partner = np.empty(len(entering)), np.empty(len(entering), np.int64)
        for start in range(0, len(entering), STRIPE):
            part = slice(start, start + STRIPE)
            rows = (space.Z[entering[part], :SKETCH] * self.image.w[entering[part], None]).astype(np.float32)
            change = costs[leaving].astype(np.float32) - rows @ Y.T
            partner[part] = change.argmin(axis=1)
            best[part] = change.min(axis=1) + costs[entering[part]]
        order = np.argsort(best, kind="stable")
        return disjoint(leaving[partner[order]], entering[order], size)

    def _pull(self) -> None:
        image, x = self.image, self.pruned
        product = image.hessian.pull_back(self._residual[None, :])[0]
        self._pulls = image.w * product + np.where(x, self._fixed, 0.0) - image.linear
        separable = float((0.5 * self._fixed - image.linear)[x].sum())
        self.value = 0.5 * float(self._residual @ self._residual) + separable
