"""The best blocks, point and prices of a lone joint row, by an interior-point method.

Correlated entries are put into groups, and the barrier problem of `solvers.bounds.groups.barrier` is followed
as T falls.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.groups.barrier import GroupSystem, Multipliers, Point, Step
from solvers.bounds.groups.clusters import correlated, joined
from solvers.bounds.groups.conjugate import WIDE, conjugate_step
from solvers.bounds.groups.newton import compliance, newton_step
from solvers.bounds.groups.reach import reach
from solvers.bounds.groups.split import Family, GroupSplit, group_bound, secure_groups
from solvers.form.blocks import Block
from solvers.hessian import Array

FIRST = 1.0
"""T times the barrier's parameter at the start, in units of the row's value."""
GROUPING = 0.3
"""And where a path begins in blocks that are held, or that other rows have had."""
LAST = 0.1
"""And at the end, as a share of the gap."""
SETTLED = 0.03
"""The same where blocks are held."""
COOLING = 0.3
"""Factor between two temperatures."""
CENTRED = 0.1
"""Squared Newton decrement, as a share of the barrier's parameter, below which T may fall."""
POOLS_CENTRED = 0.01
"""The same where groups are whole pools: D need not be definite there, and paths left early end where a state
of it is nearly singular, up to a tenth of the value below the best."""
VARIABLES = 6000
"""Most variables; groups are smaller where they would lead to more."""
CLOSED = 1e-10
"""Gap, as a share of the row's value, that is left as rounding."""
NEAR = 0.95
"""Share of a temperature at which another is as good as it: one that is a share of the gap falls with it."""
STEPS = 80
"""Steps of a stage at most."""
BOLD = 0.7
"""Share of the way to the boundary that a step of D may go."""
NEGLIGIBLE = 1e-12
"""Share of the cost of pruning everything below which a row's value is rounding, and nothing is to gain."""


def group_split(
    block: Block,
    d: Array,
    z: Array,
    value: float,
    *,
    size: int = 2,
    known: GroupSplit | None = None,
    heat: float = GROUPING,
    last: float = LAST,
    stopped: Callable[[], object] = lambda: None,
) -> tuple[GroupSplit, float]:
    """A split of a lone joint row in blocks, and its certified bound.

    Args:
        block: joint, one curvature, one right-hand side.
        d: `[n]` diagonal split to start from.
        z: `[n]` its relaxed indicators.
        value: of a mask of the row; positive.
        size: inputs of a group, a power of two; fewer in rows too wide for it (`VARIABLES`).
        known: a split in blocks to go on from, whose groups stay as they are, in the place of d and z.
        heat: T times the barrier's parameter to begin with there, in units of the value.
        last: and at the end, as a share of the gap.
        stopped: polled between Newton steps; a true answer ends the work.

    Raises:
        ValueError: if the block is not such a row.
    """
    if not block.refit or block.B.shape != (1, block.n, 1):
        raise ValueError("blocks of groups are for lone joint rows")
    while size > 1 and block.n * (size + 3) > 2 * VARIABLES:
        size //= 2
    best = grouped(block, d, z, size) if known is None else known
    if value > NEGLIGIBLE * block.constant:
        path = CentralPath(block, best, value, heat=FIRST if known is None else heat)
        path.follow(lambda gap: last * gap, stopped)
        best = path.best
    safe = secure_groups(block.H[0], best)
    return safe, group_bound(block, safe)


class CentralPath:
    """Where the ascent of a row stands.

    Attributes:
        best: the best split so far.
        steps: Newton steps taken.
    """

    def __init__(
        self,
        block: Block,
        split: GroupSplit,
        value: float,
        *,
        held: bool = False,
        heat: float | None = None,
        system: GroupSystem | None = None,
    ) -> None:
        self.block, self.value, self.held, self.best = block, value, held, split
        self._least, self.steps = np.inf, 0
        self._centred = POOLS_CENTRED if any(family.pattern for family in split.families) else CENTRED
        self.split = split
        self.system = GroupSystem(block, split, value, held=held) if system is None else system
        first = (GROUPING if held else FIRST) if heat is None else heat
        self.T = first / self.system.size
        self.point = self.system.at(self.system.pack(split), self.T)
        if self.point is not None:
            self.dual = Multipliers.central(self.system, self.point, self.T)
            self._note(split)

    @property
    def bound(self) -> float:
        """The best bound so far, but for rounding."""
        return -self._least * self.value

    def follow(self, enough: Callable[[float], float], stopped: Callable[[], object]) -> None:
        """Step along the path until T times the parameter is `enough` for the gap.

        T falls once a point is near enough to the path, and its steps go far enough.
        """
        system, cool = self.system, False
        for _ in range(STEPS):
            if self.point is None or stopped():
                break
            gap = 1.0 + self.point.objective
            last = enough(gap) / system.size
            late = last >= NEAR * self.T
            if gap <= CLOSED or (cool and late):
                break
            if cool and not late:
                self.T = max(COOLING * self.T, last)
            wide = len(self.point.x) > WIDE and not self.held
            step = (conjugate_step if wide else newton_step)(system, self.point, self.dual, self.T)
            self.steps += 1
            point, far = self._along(step) if step is not None else (None, 0.0)
            if step is None or point is None:
                break
            self.point = point
            self.dual, share = self.dual.moved(step.dual)
            cool = self._decrement(step) < self._centred and (late or min(far, share) > 0.4)
            self._note(system.unpack(self.split, point.x))

    def compliance(self) -> Array | None:
        """`[n]` see `solvers.bounds.groups.newton.compliance`; None without a point, too."""
        if self.point is None:
            return None
        return compliance(self.system, self.point, self.dual, self.T)

    def _note(self, split: GroupSplit) -> None:
        """Keep the split of the point if it is the best so far."""
        if self.point is not None and self.point.objective < self._least:
            self._least, self.best = self.point.objective, split

    def _decrement(self, step: Step) -> float:
        return -step.slope / (self.T * self.system.size)

    def _along(self, step: Step) -> tuple[Point | None, float]:
        """A point along a step that is better at T, and how far along it is; None if there is none."""
        at, T = self.point, self.T
        assert at is not None
        far = 1.0 if self.held else self._room(at, self.system.whole(step.x))
        while far > 1e-3:
            point = self.system.at(at.x + far * step.x, T)
            if point is not None and point.merit(T) <= at.merit(T) + 1e-4 * far * step.slope:
                return point, far
            far *= 0.7
        return None, 0.0

    def _room(self, point: Point, change: Array) -> float:
        """How much of a change D may take, at most all, for the remainder to keep some of its room."""
        return min(1.0, BOLD * reach(point.factor, -change))


def grouped(block: Block, d: Array, z: Array, size: int) -> GroupSplit:
    """`start` with correlated inputs in groups of at most `size`, a power of two."""
    return joined(block, start(block, d, z), correlated(block, d, size))


def start(block: Block, d: Array, z: Array, families: tuple[Family, ...] = ()) -> GroupSplit:
    """The point of a row's indicators, every entry alone inside a diagonal split, or in given blocks.

    Args:
        block: the row.
        d: `[n]` its diagonal split.
        z: `[n]` the relaxed indicators there.
        families: groups and blocks to begin with, inside the barrier; none for every entry alone.
    """
    H, b = block.H[0], block.B[0, :, 0]
    d = 0.95 * d
    v = relaxed_point(block, d[None], z)[0, :, 0]
    rest = b - H @ v
    scores = (rest + d * v) ** 2 / (2.0 * d)
    prices = np.empty(len(block.keep))
    for p, keep in enumerate(block.keep.tolist()):
        ranked = np.sort(np.append(scores[block.labels == p], 0.0))[::-1]
        prices[p] = 0.5 * (ranked[max(keep - 1, 0)] + ranked[keep])
    families = families or (Family(np.arange(block.n)[:, None], d[:, None, None]),)
    q = rest.copy()
    for family in families:
        q[family.members] += np.einsum("bij,bj->bi", family.D, v[family.members])
        if family.pattern:
            prices[block.labels[family.members]] = 0.0
    return GroupSplit(families, q, prices)
