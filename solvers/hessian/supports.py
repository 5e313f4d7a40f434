"""Systems on the supports of many rows; wide ones of one matrix are factored in single precision."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from solvers.hessian.base import CHUNK_BYTES, Array, Hessian, Index, cholesky_solve
from solvers.hessian.lapack import Single, factor, substitute
from solvers.runtime.compiled import njit
from solvers.runtime.parallel import one_thread_each, side_by_side, workers

LARGE = 512
"""Least support whose rows are solved side by side; smaller ones are done before threads have taken turns."""
WIDE = 384
"""Least support whose matrix is factored in single precision."""
BATCH = 16
"""Rows whose residuals are one product."""
PASSES = 5
"""Most solves of one system with a factor of single precision, before it is factored in double."""
SETTLED = 1e-7
"""Relative residual from which one more solve leaves nothing but rounding."""

SLACK, CONTENTION = 1.05, 1.4
"""Times of single rows are multiplied by these, for memory is slower when many are in turn, or at once."""

Support = NDArray[np.bool_]


def solve_each(hessian: Hessian, supports: Support, rhs: Array) -> Array:
    """`x_S = H_SS^-1 b_S` on the support S of every row, zero elsewhere.

    Rows with the same support and curvature share a factor. Wide supports of a dense curvature are factored
    in single precision, at a unit diagonal, and refined in double (Higham, Accuracy and Stability of
    Numerical Algorithms, section 12.2): the residuals end as small as those of a factor in double precision.

    Args:
        hessian: one for all rows, or one a row.
        supports: S, `[m, n]` bool.
        rhs: b, `[m, n]`; what lies off the support is ignored.

    Returns:
        x, `[m, n]`.

    Raises:
        ValueError: if a sub-block is singular.
    """
    solved = np.zeros(rhs.shape)
    rows = np.flatnonzero(supports.any(axis=1))
    groups = _alike(supports, rows) if hessian.shared else list(rows[:, None])
    widest = int(supports.sum(axis=1).max(initial=0))
    lone: list[int] = []
    if hessian.shared and not hessian.implicit and widest >= WIDE:
        lone = [int(group[0]) for group in groups if len(group) == 1]
        groups = [group for group in groups if len(group) > 1]

    def exactly(some: list[NDArray[np.int64]]) -> None:
        for group in some:
            index = np.flatnonzero(supports[group[0]])
            place = np.ix_(group, index)
            solved[place] = hessian.solve(int(group[0]), index, rhs[place].T).T

    if widest >= LARGE:
        parts = 4 * workers()
        side_by_side(exactly, [groups[first::parts] for first in range(parts)])
    else:
        with one_thread_each():
            exactly(groups)
    if lone:
        _Refined(hessian, supports, rhs, solved).run(lone, widest)
    return solved


def seconds(hessian: Hessian, rows: int, size: int) -> float:
    """What `solve_each` takes on supports of one size in rows of a shared curvature, about.

    A row's solve is timed, and a product of some rows, as come before and after it and in refinements.
    """
    if not size:
        return 0.0
    with one_thread_each():
        each = _seconds_each(hessian, min(4 * BATCH, rows), size)
    if size < LARGE or workers() == 1:
        return SLACK * each * rows
    return CONTENTION * each * rows / min(rows, workers())


def _seconds_each(hessian: Hessian, rows: int, size: int) -> float:
    """The same of one row, alone."""
    index = np.sort(np.random.default_rng(0).choice(hessian.n, size, replace=False))
    if hessian.implicit or size < WIDE:
        lone, products = _least(lambda: hessian.solve(0, index, np.zeros(size))), 2.0
    else:
        scale, unit = hessian.unit
        room = np.empty(size**2, dtype=np.float32)

        def solve() -> None:
            U = _factor(unit, index, room)
            for _ in range(3):
                _solve(U, scale[index])

        lone, products = _least(solve), 5.0
    product = _least(lambda: hessian.matmul(np.ones((rows, hessian.n))))
    return lone + products * product / rows


def _least(work: Callable[[], object]) -> float:
    """The seconds of the quicker of two runs."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


class _Refined:
    """Rows' systems, a batch at a time: their factors in single precision, their residuals in one product."""

    def __init__(self, hessian: Hessian, supports: Support, rhs: Array, solved: Array) -> None:
        self.H, self.supports, self.rhs, self.solved = hessian.dense(0), supports, rhs, solved
        self.scale, self.unit = hessian.unit

    def run(self, rows: list[int], widest: int) -> None:
        """Fill in `solved` for some rows."""
        size = min(BATCH, max(1, CHUNK_BYTES // (4 * widest**2)), len(rows))

        def share(some: list[int]) -> None:
            room = np.empty((size, widest * widest), dtype=np.float32)
            for start in range(0, len(some), size):
                self._batch(np.array(some[start : start + size]), room)

        if widest >= LARGE:
            side_by_side(share, [rows[first :: workers()] for first in range(workers())])
        else:
            with one_thread_each():
                share(rows)

    def _batch(self, rows: Index, room: Single) -> None:
        places = [np.flatnonzero(self.supports[r]) for r in rows]
        factors = [_factor(self.unit, index, part) for index, part in zip(places, room, strict=False)]
        goal = self.rhs[rows] * self.supports[rows] * self.scale
        x, left = np.zeros(goal.shape), goal
        sizes = np.linalg.norm(goal, axis=1)
        unsettled = {k for k, U in enumerate(factors) if U is not None and sizes[k] > 0}
        for _ in range(PASSES):
            for k in unsettled:
                x[k, places[k]] += _solve(factors[k], left[k, places[k]])
            if not unsettled:
                break
            left = goal - (x * self.scale) @ self.H * self.scale * self.supports[rows]
            after = np.linalg.norm(left, axis=1)
            settled = {k for k in unsettled if after[k] <= SETTLED * sizes[k]}
            for k in settled:
                x[k, places[k]] += _solve(factors[k], left[k, places[k]])
            unsettled -= settled
        self.solved[rows] = x * self.scale
        for k, r in enumerate(rows):
            if factors[k] is None or k in unsettled:
                place = np.ix_(places[k], places[k])
                self.solved[r, places[k]] = cholesky_solve(self.H[place], self.rhs[r, places[k]])


def _factor(unit: Single, index: Index, room: Single) -> Single | None:
    """The factor of a sub-block, in the memory given; None where it seems indefinite."""
    A = room[: len(index) ** 2].reshape(len(index), len(index))
    _gather(unit, index, A)
    return A if factor(A) else None


@njit(cache=True, nogil=True)
def _gather(A: Single, index: Index, block: Single) -> None:
    """The upper triangle of `A[index][:, index]` into `block`."""
    for i in range(len(index)):
        row = A[index[i]]
        for j in range(i, len(index)):
            block[i, j] = row[index[j]]


def _solve(U: Single | None, b: Array) -> Array:
    """`(U'U)^-1 b`, to single precision whatever the size of b."""
    assert U is not None
    size = float(np.abs(b).max(initial=0.0)) or 1.0
    x = (b / size).astype(np.float32)
    substitute(U, x)
    return x.astype(np.float64) * size


def _alike(supports: Support, rows: Index) -> list[NDArray[np.int64]]:
    """Rows by their support."""
    groups: dict[bytes, list[int]] = {}
    for r, support in zip(rows.tolist(), np.packbits(supports[rows], axis=1), strict=True):
        groups.setdefault(support.tobytes(), []).append(r)
    return [np.array(group) for group in groups.values()]
