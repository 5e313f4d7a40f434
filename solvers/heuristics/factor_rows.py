"""Rows whose curvature is a factor that is never formed: opened at a mask, searched window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.factor.image import Coordinates, Image, coordinates, images, sketched
from solvers.hessian import Array
from solvers.hessian.base import CHUNK_BYTES
from solvers.heuristics.rows.search import Effort, RowSearch, state
from solvers.heuristics.rows.tableau import RowData
from solvers.problem import Mask, SubsetProblem

Items = NDArray[np.int64]
NEAR = 4096
"""Entries of either side whose swaps are looked at pair by pair."""
SKETCH = 256
"""Directions of the image in which such a look is taken."""
STRIPE = 512
"""Entries of one side that it takes at a time."""
FRESH = 20
"""Changes of the kernel between two fresh ones: rounding gathers."""
SHARE = 1 / 32
"""Entries pruned between two looks at all costs, of those left to prune; one at a time at the end."""


class FactorRow(ABC):
    """A pruned set of a wide row, and its value.

    Moves are made in windows: a few hundred entries that become a dense row of their own while all others
    keep their sides, so that the searches of dense rows (`solvers.heuristics.rows.search`) judge every move
    exactly.

    Attributes:
        image: the row.
        pruned: `[n]`.
        value: what it costs.
    """

    image: Image
    pruned: Mask
    value: float

    @abstractmethod
    def set(self, pruned: Mask) -> None:
        """Go on from another set."""

    @abstractmethod
    def costs(self) -> Array:
        """`[n]` change of the value when an entry alone changes sides."""

    @abstractmethod
    def data(self, window: Items) -> RowData:
        """The dense row of a window, whose value differs from this row's by a constant."""

    @abstractmethod
    def flip(self, changed: Items) -> None:
        """Entries change sides."""

    def cheapest(self, size: int) -> Items:
        """A window of the entries that change sides most cheaply."""
        return shortlist(self.costs(), self.pruned, self.image.labels, size)

    def exchange(self, window: Items, seed: list[int], effort: Effort, rounds: int) -> None:
        """Search a window (`RowSearch.round`), and keep what it finds if it lowers the value.

        Args:
            window: entries, ascending.
            seed: of every random choice.
            effort: of one round.
            rounds: of the search.
        """
        inside = self.pruned[window]
        if inside.all() or not inside.any():
            return
        data = self.data(window)
        search = RowSearch(data, inside, float(state(data, inside.copy()).cost[0]), seed, effort)
        for _ in range(rounds):
            search.round()
        changed = window[search.mask != inside]
        if not len(changed):
            return
        value, before = self.value, self.pruned.copy()
        self.flip(changed)
        if self.value >= value:
            self.set(before)


def shortlist(costs: Array, pruned: Mask, labels: NDArray[np.int64], size: int) -> Items:
    """The entries that change sides most cheaply, in ascending order.

    In a single pool these are the `size / 2` cheapest of either kind. Of several pools, those whose
    cheapest two add up to least are taken whole, as many as fit.

    Args:
        costs: `[n]` of changing sides.
        pruned: `[n]` present set.
        labels: `[n]` pools, counted from 0.
        size: of the window.
    """
    pools = int(labels.max()) + 1
    if pools == 1:
        sides = (np.flatnonzero(pruned), np.flatnonzero(~pruned))
        return np.sort(np.concatenate([_cheapest(side, costs, size // 2) for side in sides]))
    best = np.full((2, pools), np.inf)
    np.minimum.at(best, (pruned.astype(np.int64), labels), costs)
    order = np.argsort(best.sum(axis=0), kind="stable")
    fits = np.searchsorted(np.cumsum(np.bincount(labels, minlength=pools)[order]), size, side="right")
    return np.flatnonzero(np.isin(labels, order[: max(1, int(fits))]))


def disjoint(first: Items, second: Items, size: int) -> Items:
    """Entries of the first pairs that share none, up to `size`, ascending; `second` has no entry twice."""
    _, at = np.unique(first, return_index=True)
    at = np.sort(at)[: size // 2]
    return np.sort(np.concatenate([first[at], second[at]]))


def margins(scores: Array, taken: Mask, labels: NDArray[np.int64]) -> Array:
    """`[n]` how far every score is from its pool's threshold: midway from the least taken to the next.

    Args:
        scores: `[n]`.
        taken: `[n]`, the largest scores of every pool.
        labels: `[n]` pools, counted from 0.
    """
    pools = int(labels.max()) + 1
    least, most = np.full(pools, np.inf), np.full(pools, -np.inf)
    np.minimum.at(least, labels[taken], scores[taken])
    np.maximum.at(most, labels[~taken], scores[~taken])
    middle = np.where(np.isfinite(least) & np.isfinite(most), 0.5 * (least + most), 0.0)
    return np.asarray(np.abs(scores - middle[labels]))


def near(
    margin: Array, pruned: Mask, labels: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Items:
    """A random window of entries that are near their thresholds: the nearer, the likelier.

    Args:
        margin: `[n]`, from `margins`.
        pruned: `[n]` present set.
        labels: `[n]` pools.
        size: of the window.
        rng: source of randomness.
    """
    scale = float(np.partition(margin, min(2 * size, len(margin) - 1))[min(2 * size, len(margin) - 1)])
    return shortlist(margin + scale * rng.exponential(size=len(margin)), pruned, labels, size)


def _cheapest(side: Items, costs: Array, count: int) -> Items:
    if len(side) <= count:
        return side
    return side[np.argpartition(costs[side], count)[:count]]


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
        if not all(map(len, sides)):  # all of the row stays, or goes
            return np.zeros(0, dtype=np.int64)
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
        with np.errstate(over="ignore"):  # one that carries all of the rest can't go at any price
            return np.asarray(
                np.where(self.pruned, -(move**2) / (2.0 * (e + self._h)), move**2 / (2.0 * rest))
            )

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


def greedy_factor_mask(problem: SubsetProblem, stopped: Callable[[], object] = lambda: None) -> Mask:
    """The mask `[m, n]` of the greedy rule on a factor that is never formed.

    Costs are those of one entry more: `w^_j^2 / (2 (H_SS^-1)_jj)` when joint, with all survivors S moved
    (Hassibi & Stork 1992), `A_jj / 2 + (A x - c)_j` for selections. Budgets of several rows are met by all
    of their entries together.

    Args:
        problem: reduced, with a curvature that is a factor, or blocks of factors.
        stopped: polled between steps; a true answer has the rest pruned by its costs at once.
    """
    found = []
    for image in images(problem):
        none = np.zeros(len(image.w), dtype=bool)
        found.append(_prune(open_factor_row(image, coordinates(image), none), stopped))
    return np.concatenate(found).reshape(problem.W.shape)


def _prune(row: FactorRow, stopped: Callable[[], object]) -> Mask:
    image = row.image
    sizes = np.bincount(image.labels)
    room = sizes - image.take if image.refit else image.take.copy()
    while left := int(room.sum()):
        some = left if stopped() else max(1, int(SHARE * left))
        costs = np.where(row.pruned, np.inf, row.costs())
        order = np.argsort(costs, kind="stable")[: np.count_nonzero(np.isfinite(costs))]
        owner = image.labels[order]
        by_pool = np.argsort(owner, kind="stable")
        rank = np.empty(len(order), np.int64)
        first = np.searchsorted(owner[by_pool], np.arange(len(room)))
        rank[by_pool] = np.arange(len(order)) - first[owner[by_pool]]
        chosen = order[rank < room[owner]][:some]
        row.flip(np.sort(chosen))
        room -= np.bincount(image.labels[chosen], minlength=len(room))
    return row.pruned
