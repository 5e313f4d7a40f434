"""Where rows of one curvature begin: in blocks that some of them have while the barrier is strong.

At a high temperature the best blocks are nearly those of the curvature alone, and rows differ little in them.
Their mean over a few rows is a point from which every row is far from the boundary, and near its own path: a
row of 784 inputs is there in six steps less than from a diagonal split, of some fifteen that it can afford.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solvers.bounds.groups.central_path import FIRST, NEGLIGIBLE, CentralPath, start
from solvers.bounds.groups.clusters import joined
from solvers.bounds.groups.split import Family
from solvers.bounds.groups.states import Index
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.parallel import side_by_side


@dataclass(frozen=True)
class Opening:
    """Where rows of a curvature begin.

    Attributes:
        families: groups and blocks, inside the barrier.
        step: seconds of a Newton step of a row, as far as seen; 0 where none was.
    """

    families: tuple[Family, ...]
    step: float = 0.0

    @classmethod
    def of(
        cls,
        starts: Sequence[tuple[Block, Array, Array, float]],
        groups: Sequence[Index],
        stopped: Callable[[], object],
    ) -> Opening:
        """The mean of the blocks that some rows have at the temperature `FIRST`.

        Args:
            starts: rows of one curvature and budget, each with a diagonal split, its relaxed indicators and
                the value of a mask, as `solvers.bounds.groups.central_path.group_split` takes them.
            groups: the groups of all.
            stopped: polled between Newton steps; a true answer leaves blocks where they are.
        """

        def hot(row: tuple[Block, Array, Array, float]) -> tuple[tuple[Family, ...], int, float]:
            block, d, z, value = row
            split = joined(block, start(block, d, z), groups)
            if not value > NEGLIGIBLE * block.constant:
                return split.families, 0, 0.0
            began = time.perf_counter()
            path = CentralPath(block, split, value, heat=FIRST)
            path.follow(lambda gap: FIRST, stopped)
            if path.point is not None:
                split = path.system.unpack(split, path.point.x)
            return split.families, path.steps, time.perf_counter() - began

        found, steps, seconds = zip(*side_by_side(hot, starts), strict=True)
        mean = tuple(
            replace(same[0], D=np.mean([family.D for family in same], axis=0))
            for same in zip(*found, strict=True)
        )
        return cls(mean, sum(seconds) / max(sum(steps), 1))
