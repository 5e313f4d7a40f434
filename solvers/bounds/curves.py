"""Certified lower bounds of every row at every k, from the relaxation at a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from solvers.bounds.evaluate import bound_curve, relaxed_point
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.groups.split import group_curve
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows, curves_at, shareable
from solvers.bounds.split import WIDE, Split, split_blocks
from solvers.budget import Budget
from solvers.form.blocks import Block, blocks
from solvers.greedy.curves import row_curves
from solvers.hessian import Array, Hessian
from solvers.problem import SubsetProblem
from solvers.runtime.parallel import side_by_side

KNOTS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
"""Shares pruned at which the relaxation is solved."""
WIDE_KNOTS = (0.5, 0.8, 0.95)
"""The same, where solving it once takes long."""
GROUP = 4
"""Inputs of a block, where wide rows get splits in blocks."""


def lower_curves(
    W: Array,
    H: Hessian | Array,
    G: Array | None = None,
    *,
    refit: bool = True,
    device: str = "cpu",
    stopped: Callable[[], object] = lambda: None,
    deadline: float | None = None,
) -> Array:
    """`[m, n + 1]`, a valid lower bound on the cost of pruning k entries of a row, for every k.

    A point u bounds every k at once, since only the number of scores taken depends on k:

        joint      LB_k(u) = 1/2 w'Hw - 1/2 u'Ru - sum of the n - k largest q_i^2 / (2 d_i)
        selection  LB_k(u) = -1/2 u'Ru + sum of the k smallest t_i

    so the relaxation is solved at a few k and the best of its points is taken at every k. Wide joint rows get
    splits in blocks too while a deadline lasts, at the same k, the widest gaps first
    (`solvers.bounds.groups.split`): the price t of keeping an entry is the slope of the line
    `LB_k = LB_k0 + t (k - k0)`.

    Args:
        W: `[m, n]`.
        H: curvature.
        G: `[m, n]` gradient of a selection problem, or None.
        refit: joint, or selection.
        device: torch device.
        stopped: polled between relaxations; a true answer leaves the bounds as they are.
        deadline: `time.perf_counter()` up to which wide joint rows get splits in blocks; None for none.
    """
    m, n = W.shape
    best = np.full((m, n + 1), -np.inf)
    knots = KNOTS if n <= WIDE else WIDE_KNOTS
    counts = sorted({min(max(round(share * n), 1), n - 1) for share in knots}) if n > 1 else []
    starts: list[tuple[Block, Split]] = []
    for k in [*counts, 0, n]:
        if stopped():
            break
        problem = SubsetProblem(W, H, Budget.per_row(k), refit=refit, gradient=G)
        H = problem.hessian
        if n > WIDE and shareable(problem):
            rows = SharedRows.of(problem, device)
            shared = relaxation.choose(rows, stopped)
            v, z = relaxation.relax(rows, shared, stopped)
            np.fmax(best, curves_at(rows, shared.d, v), out=best)
            if deadline is not None and refit and 0 < k < n:
                d, shares = shared.d.cpu().numpy()[None], z.cpu().numpy()
                starts += [
                    (b, Split(d, z, shared.steps)) for b, z in zip(blocks(problem), shares, strict=True)
                ]
            continue
        found = blocks(problem)
        for r, (block, split) in enumerate(
            zip(found, split_blocks(found, device=device, stopped=stopped), strict=True)
        ):
            u = relaxed_point(block, split.d, split.z)
            np.fmax(best[r], bound_curve(block, split.d, u), out=best[r])
            if deadline is not None and refit and n > WIDE and not block.trivial:
                starts.append((block, split))
    if starts and deadline is not None:
        values = row_curves(W, H).values
        _raise(best, starts, values, lambda: stopped() or time.perf_counter() >= deadline)
    if refit:
        np.maximum.accumulate(np.maximum(best, 0.0), axis=1, out=best)
    return best


def _raise(
    best: Array, starts: list[tuple[Block, Split]], values: Array, stopped: Callable[[], object]
) -> None:
    """Lift the curves by splits in blocks at their knots, in place, the widest gaps to `values` first."""

    def place(start: tuple[Block, Split]) -> tuple[int, int]:
        return int(start[0].rows[0]), int(start[0].prune[0])

    def lift(start: tuple[Block, Split]) -> None:
        block, split = start
        value = float(values[place(start)])
        if not stopped():
            safe, _ = group_split(block, split.d[0], split.z, value, size=GROUP, stopped=stopped)
            np.fmax(best[block.rows[0]], group_curve(block, safe), out=best[block.rows[0]])

    wide = [start for start in starts if values[place(start)] > 0.0]
    side_by_side(lift, sorted(wide, key=lambda start: float(best[place(start)] / values[place(start)])))
