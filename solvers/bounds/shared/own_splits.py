"""Splits of rows' own, from the one they share: the widest gaps first, while time lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from solvers.bounds.secure import secure
from solvers.bounds.shared import relaxation as wide
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.shared.split import NEAR, shared_split
from solvers.hessian import Array
from solvers.runtime.parallel import side_by_side
from solvers.runtime.tensors import Tensor, torch

Stopped = Callable[[], object]
Bounding = Callable[[SharedRows, wide.SharedSplit, int], float]
"""A bound of a lone row at a split, and which row it is."""

QUICK = 8
"""Steps that every row takes before any takes more."""


def own_bounds(
    rows: SharedRows,
    shared: wide.SharedSplit,
    known: Array,
    values: Array,
    bounding: Bounding,
    stopped: Stopped,
    *,
    thorough: bool = True,
    news: Callable[[Array], object] = lambda bounds: None,
) -> tuple[Array, int]:
    """`[m]` bounds not below `known`, and how many rows had their turn.

    A row takes some factorisations, so this is for as many rows as there is time for. Most of what there is
    to gain comes with the first few steps: all rows take these, then go on.

    Args:
        rows: joint rows whose pools lie within them, in double precision.
        shared: their split.
        known: `[m]` bounds at hand.
        values: `[m]` what a mask of each row costs; the widest difference goes first.
        bounding: bounds a row at its own split.
        stopped: polled within a row; a true answer ends the work.
        thorough: whether rows go on after the first few steps.
        news: told the bounds after every row; a true answer ends the work.
    """
    bounds, ended = known.copy(), False
    H = rows.H.cpu().numpy()
    own: dict[int, Tensor] = {}

    def work(r: int, most: int | None) -> bool:
        nonlocal ended
        lone = rows.some(np.array([r]))
        if ended or stopped() or wide.trivial(lone) or bounds[r] >= values[r]:
            return False
        start = own.get(r, NEAR * shared.d)
        own[r], _, steps = shared_split(lone, shared.inverse, start, most=most, stopped=stopped)
        safe = torch.as_tensor(secure(H, own[r].cpu().numpy(), True), device=start.device)
        bounds[r] = max(bounds[r], bounding(lone, replace(shared, d=safe, steps=steps), r))
        ended = ended or bool(news(bounds))
        return True

    done = 0
    for most in (QUICK, None) if thorough else (QUICK,):
        order = np.argsort(bounds - values, kind="stable").tolist()
        done = max(done, sum(side_by_side(lambda r, most=most: work(r, most), order)))  # type: ignore[misc]
    return bounds, done


def plain_bound(lone: SharedRows, split: wide.SharedSplit, row: int) -> float:
    """The bound of a lone row at its relaxation's point."""
    return float(wide.bounds(lone, split, wide.relax(lone, split)[0])[0])
