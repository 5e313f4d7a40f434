"""A row whose curvature is a factor that is never formed, searched window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.factor.image import Image
from solvers.hessian import Array
from solvers.heuristics.rows.search import Effort, RowSearch, state
from solvers.heuristics.rows.tableau import RowData
from solvers.problem import Mask

Items = NDArray[np.int64]


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
