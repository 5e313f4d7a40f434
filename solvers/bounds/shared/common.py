"""One split in groups for many rows of one curvature: what takes seconds for one row is done once for all.

Where blocks are held, a row's bound is concave in its residuals and prices alone, and its best is found in a
few Newton steps of n variables (`solvers.bounds.groups.central_path`). By the weights `p_S` that the states
of a row have there, the sum of the rows' bounds has the slope

    G = 1/2 sum_rows (sum_S p_S w_S w_S' - y y')     inside groups,     y = sum_S p_S w_S = R^-1 (b - q)

in D, and a step E of D is a Newton step on

    tr(G E) - tr(G E A E)  +  mu log det(H - D - E)  +  mu log det(D + E)

whose first part has that slope, and curvature as if scores `1/2 q_S' (D_SS)^-1 q_S` alone changed, with `A`
for `(D_SS)^-1`. It is solved by conjugate gradients, as those of a row's own
(`solvers.bounds.groups.conjugate`). Then mu falls, and the rows follow with their y kept. (For diagonal
splits: `solvers.bounds.shared.relaxation.shared_split`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from solvers.bounds.groups.barrier import GroupSystem
from solvers.bounds.groups.central_path import CLOSED, GROUPING, SETTLED, CentralPath
from solvers.bounds.groups.conjugate import around, inside
from solvers.bounds.groups.reach import reach
from solvers.bounds.groups.split import Family, GroupSplit, group_bound, secure_groups
from solvers.bounds.groups.states import Index, entries
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.parallel import side_by_side

Stopped = Callable[[], object]

STEPS = 40
"""Steps of the blocks at most."""
COOL = 0.4
"""Factor of the barrier's weight from step to step, where a step went far enough."""
FAR = 0.4
"""Share of a step that is far enough."""
LAST = 0.03
"""What the barrier keeps from the rows' bounds at the end, as a share of their gap."""
WARM = 0.1
"""The same of the rows' own barriers."""
ENOUGH = 1e-3
"""Share of the gap that a step at the last weight has to close, or it is the last one."""
PRODUCTS, RESIDUAL = 60, 0.1
"""Of conjugate gradients: products a step at most, and the residual that is small enough, relative."""


class HeldGroups:
    """Blocks that rows share, held and opened once. Rows come in units of their values.

    Args:
        block: any of the rows.
        families: groups and blocks, secured for the curvature (`solvers.bounds.groups.split.secure_groups`)
            where bounds are to be claimed.

    Raises:
        ValueError: if the remainder of the curvature, or a block, is not positive definite.
    """

    def __init__(self, block: Block, families: tuple[Family, ...]) -> None:
        self.families = families
        split = GroupSplit(families, np.zeros(block.n), np.zeros(len(block.keep)))
        self._system = GroupSystem(block, split, 1.0, held=True)
        if not self._system.definite:
            raise ValueError("blocks and remainder have to be positive definite")

    def settled(
        self,
        block: Block,
        start: GroupSplit,
        value: float,
        *,
        heat: float | None = None,
        last: float = SETTLED,
        stopped: Stopped = lambda: None,
    ) -> tuple[GroupSplit, float]:
        """The best point and prices of a row at these blocks, and its certified bound.

        Args:
            block: the row.
            start: where to start; its blocks count for nothing.
            value: of a mask of the row; positive.
            heat: T times the barrier's parameter to begin with, in units of the value; None from far away.
            last: T times the parameter at the end, as a share of the gap.
            stopped: polled between Newton steps; a true answer ends the work.
        """
        row, unit = _Row.of(block, start, value), math.sqrt(value)
        best = row.settled(self, last, heat, stopped).best
        split = replace(best, q=unit * best.q, t=value * best.t)
        return split, group_bound(block, split)

    def moved(self, x: Array) -> Array:
        """`D x [n]`: how q moves with the weights where the weights that are kept move along."""
        Dx = np.empty_like(x)
        for family in self.families:
            Dx[family.members] = np.einsum("bij,bj->bi", family.D, x[family.members])
        return Dx

    def path(self, block: Block, q: Array, t: Array, heat: float | None) -> CentralPath:
        """A row's path at these blocks, from residuals `q [n]` and prices `t [pools]`."""
        system = self._system.of_row(block)
        return CentralPath(block, GroupSplit(self.families, q, t), 1.0, held=True, heat=heat, system=system)


@dataclass
class _Row:
    """A row in units of its value (weights divided by the root of it), and where it stands."""

    block: Block
    q: Array
    t: Array

    @classmethod
    def of(cls, block: Block, split: GroupSplit, value: float) -> _Row:
        unit = math.sqrt(value)
        own = replace(block, B=block.B / unit, W=block.W / unit, constant=block.constant / value)
        return cls(own, split.q / unit, split.t / value)

    def settled(self, held: HeldGroups, last: float, heat: float | None, stopped: Stopped) -> CentralPath:
        """Its path at held blocks, followed until T times the parameter is a share of the gap."""
        path = held.path(self.block, self.q, self.t, heat)
        path.follow(lambda gap: last * gap, stopped)
        return path

    def moved(self, path: CentralPath, moves: Sequence[Array]) -> None:
        """Stay at the path's y as the blocks move."""
        assert path.point is not None
        at = path.system.unpack(path.split, path.point.x)
        self.q, self.t = at.q, at.t
        for family, E in zip(at.families, moves, strict=True):
            self.q[family.members] += np.einsum("bij,bj->bi", E, path.point.y[family.members])


def common_groups(
    found: Sequence[Block],
    splits: Sequence[GroupSplit],
    values: Sequence[float],
    *,
    stopped: Stopped = lambda: None,
) -> tuple[Family, ...]:
    """Groups with the blocks that are best for rows together, each in units of its value, secured.

    Args:
        found: lone joint rows of one curvature, with pools of one size and one budget.
        splits: where they start: of the same groups (parts of pools) and blocks, inside the barrier.
        values: of masks of theirs; positive.
        stopped: polled between Newton steps; a true answer leaves the blocks as good as they are.

    Raises:
        ValueError: if the curvature is too close to singular for a certified split.
    """
    rows = [_Row.of(*each) for each in zip(found, splits, values, strict=True)]
    held = HeldGroups(found[0], splits[0].families)
    best, least, heat, mu = held.families, math.inf, GROUPING, math.nan
    for step in range(STEPS):
        settle = partial(_Row.settled, held=held, last=WARM, heat=heat, stopped=stopped)
        paths = side_by_side(settle, rows)
        if stopped():
            break
        gap = sum(1.0 - path.bound for path in paths)
        gained, before = least - gap, least
        if gained > 0.0:
            best, least = held.families, gap
        slope, size = _slope(held, paths), 2.0 * found[0].n
        if not step:
            mu = sum(float((G * at.D).sum()) for G, at in zip(slope, held.families, strict=True)) / size
        last = LAST * gap / size
        closed = gap <= CLOSED * len(rows)
        if closed or not mu > 0.0 or (mu <= last and gained < ENOUGH * before):
            break
        moved = _moved(held, paths, slope, mu)
        if moved is None:
            break
        held, moves, far = moved
        for row, path in zip(rows, paths, strict=True):
            row.moved(path, moves)
        heat = min(GROUPING, WARM * gap / len(rows))
        if far > FAR:
            mu = max(COOL * mu, last)
    return secure_groups(found[0].H[0], replace(splits[0], families=best)).families


def _slope(held: HeldGroups, paths: Sequence[CentralPath]) -> list[Array]:
    """G of every family, `[B, s, s]`."""
    slope = [np.zeros_like(family.D) for family in held.families]
    for path in paths:
        assert path.point is not None
        for G, states, p in zip(slope, path.point.states, path.dual.p, strict=True):
            share = p / p.sum(axis=1, keepdims=True)
            mean = np.einsum("bk,bki->bi", share, states.w)
            G += 0.5 * (states.w.transpose(0, 2, 1) @ (states.w * share[:, :, None]))
            G -= 0.5 * mean[:, :, None] * mean[:, None, :]
    return slope


def _moved(
    held: HeldGroups, paths: Sequence[CentralPath], slope: Sequence[Array], mu: float
) -> tuple[HeldGroups, list[Array], float] | None:
    """Blocks a step on, by how much each moved, and how far along the step; None where none goes anywhere."""
    block, point, system = paths[0].block, paths[0].point, paths[0].system
    assert point is not None
    own = [
        np.einsum("k,bkij->bij", each.largest, states.inverse)
        for each, states in zip(system.states, point.states, strict=True)
    ]
    wanted = [
        G - mu * point.S[at[:, :, None], at[:, None, :]] + mu * A
        for G, at, A in zip(slope, system.families, own, strict=True)
    ]
    moves = _Curvature.of(system.families, slope, own, point.S, mu).solve(wanted)
    change = np.zeros_like(system.H)
    for family, E in zip(held.families, moves, strict=True):
        change[family.members[:, :, None], family.members[:, None, :]] = E
    far = min(1.0, 0.8 * reach(point.factor, -change))
    while far > 1e-3:
        families = tuple(replace(at, D=at.D + far * E) for at, E in zip(held.families, moves, strict=True))
        try:
            return HeldGroups(block, families), [far * E for E in moves], far
        except ValueError:
            far *= 0.7
    return None


@dataclass(frozen=True)
class _Curvature:
    """The matrix of a step of blocks: `2 E A E G + mu E S E S + mu E A E A`, by its traces.

    Attributes:
        sizes: `(B, s)` of every family.
        starts, S: as `solvers.bounds.groups.conjugate.Matrix` has them.
        mu: weight of the barrier.
        own: `[B, E, E]` of every family, the two parts with A.
        inverse: of these and of what S adds inside groups.
    """

    sizes: list[tuple[int, int]]
    starts: Index
    S: Array
    mu: float
    own: list[Array]
    inverse: list[Array]

    @classmethod
    def of(
        cls, members: Sequence[Index], slope: Sequence[Array], own: Sequence[Array], S: Array, mu: float
    ) -> _Curvature:
        order = np.concatenate([at.ravel() for at in members])
        sizes = np.concatenate([np.full(len(at), at.shape[1]) for at in members])
        parts, inverse = [], []
        for at, G, A in zip(members, slope, own, strict=True):
            i, j, half = entries(at.shape[1])
            part = _pairs(A, 2.0 * G + mu * A)
            both = np.zeros((len(at), at.shape[1] + len(i), at.shape[1] + len(i)))
            inside(at, i, j, half, S, mu * S, both)
            parts.append(part)
            near = part + both[:, at.shape[1] :, at.shape[1] :]
            inverse.append(np.asarray(np.linalg.inv(near), dtype=np.float64))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        ordered = np.ascontiguousarray(S[np.ix_(order, order)])
        return cls([at.shape for at in members], starts, ordered, mu, parts, inverse)

    def solve(self, wanted: Sequence[Array]) -> list[Array]:
        """The step `[B, s, s]` of every family for slopes of its blocks, by conjugate gradients."""
        rest = [_packed(2.0 * A) for A in wanted]
        x = [np.zeros_like(r) for r in rest]
        ahead = moved = self._near(rest)
        size = first = _dot(rest, moved)
        for _ in range(PRODUCTS):
            product = self._product(ahead)
            share = size / _dot(ahead, product)
            x = [a + share * b for a, b in zip(x, ahead, strict=True)]
            rest = [a - share * b for a, b in zip(rest, product, strict=True)]
            moved = self._near(rest)
            size, last = _dot(rest, moved), size
            if not size > RESIDUAL**2 * first:
                break
            ahead = [a + size / last * b for a, b in zip(moved, ahead, strict=True)]
        return [_blocks(a, s) for a, (_, s) in zip(x, self.sizes, strict=True)]

    def _near(self, rest: Sequence[Array]) -> list[Array]:
        return [np.einsum("bij,bj->bi", A, r) for A, r in zip(self.inverse, rest, strict=True)]

    def _product(self, x: Sequence[Array]) -> list[Array]:
        D = [_blocks(a, s) for a, (_, s) in zip(x, self.sizes, strict=True)]
        packed = np.concatenate([d.ravel() for d in D])
        around(self.starts, self.S, self.S, packed, out := np.empty(len(packed)))
        found, first = [], 0
        for a, own, (groups, s) in zip(x, self.own, self.sizes, strict=True):
            M = self.mu * out[first : first + groups * s * s].reshape(groups, s, s)
            first += groups * s * s
            found.append(np.einsum("bij,bj->bi", own, a) + _packed(M + M.transpose(0, 2, 1)))
        return found


def _pairs(A: Array, G: Array) -> Array:
    """`[B, E, E]` of `tr(E A E G)` in the entries of symmetric blocks, for `[B, s, s]` of A and G."""
    i, j, half = entries(A.shape[1])
    at = (slice(None), i[:, None], i), (slice(None), i[:, None], j), (slice(None), j[:, None], j)
    found = A[at[0]] * G[at[2]] + A[at[2]] * G[at[0]]
    across, other = A[at[1]], G[at[1]]
    found += across * other.transpose(0, 2, 1) + across.transpose(0, 2, 1) * other
    return np.asarray(found * (half[:, None] * half))


def _packed(A: Array) -> Array:
    """`[B, E]` the slope in the entries of symmetric blocks of one of `1/2 tr(A E)`, `[B, s, s]`."""
    i, j, half = entries(A.shape[1])
    return np.asarray(half * A[:, i, j])


def _blocks(x: Array, s: int) -> Array:
    """`[B, s, s]` symmetric blocks of entries `[B, E]`."""
    i, j, _ = entries(s)
    A = np.empty((len(x), s, s))
    A[:, i, j] = A[:, j, i] = x
    return A


def _dot(a: Sequence[Array], b: Sequence[Array]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))
