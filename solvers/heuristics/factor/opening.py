"""The search state of a row, as its variant and the size of its image ask for it."""

from __future__ import annotations

from solvers.bounds.factor.image import Coordinates, Image, sketched
from solvers.heuristics.factor.joint import JointRow
from solvers.heuristics.factor.row import FactorRow
from solvers.heuristics.factor.selection import SelectionRow
from solvers.problem import Mask


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
