"""A row whose curvature is a factor that is never formed, searched window by window."""

from __future__ import annotations

from abc import ABC, abstractmethod

from solvers.bounds.factor.image import Image
from solvers.hessian import Array
from solvers.heuristics.factor.windows import Items, shortlist
from solvers.heuristics.rows.search import Effort, RowData, RowSearch, state
from solvers.problem import Mask


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
