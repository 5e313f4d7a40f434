"""Greedy pruning of wide rows: the cheapest entries next, some at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.bounds.factor.image import coordinates, images
from solvers.heuristics.factor.joint import open_factor_row
from solvers.heuristics.factor.row import FactorRow
from solvers.problem import Mask, SubsetProblem

SHARE = 1 / 32
"""Entries pruned between two looks at all costs, of those left to prune; one at a time at the end."""


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
