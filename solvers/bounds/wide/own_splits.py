"""Splits of rows' own, from the one they share: the widest gaps first, while time lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from solvers.bounds.secure import secure
from solvers.bounds.wide import relaxation as wide
from solvers.bounds.wide.shared_rows import SharedRows
from solvers.bounds.wide.shared_split import NEAR, shared_split
from solvers.hessian import Array

Stopped = Callable[[], object]
Bounding = Callable[[SharedRows, wide.SharedSplit, int], float]
"""A bound of a lone row at a split, and which row it is."""


def own_bounds(
    rows: SharedRows,
    shared: wide.SharedSplit,
    known: Array,
    values: Array,
    bounding: Bounding,
    stopped: Stopped,
) -> tuple[Array, int]:
    """`[m]` bounds not below `known`, and how many rows had their turn.

    A row takes some dozens of factorisations, so this is for as many rows as there is time for.

    Args:
        rows: joint rows whose pools lie within them, in double precision.
        shared: their split.
        known: `[m]` bounds at hand.
        values: `[m]` what a mask of each row costs; the widest difference goes first.
        bounding: bounds a row at its own split.
        stopped: polled within a row; a true answer ends the work.
    """
    bounds, done = known.copy(), 0
    H = rows.H.cpu().numpy()
    for r in np.argsort(known - values, kind="stable").tolist():
        lone = rows.some(np.array([r]))
        if stopped():
            break
        if wide.trivial(lone) or known[r] >= values[r]:
            continue
        d, _, steps = shared_split(lone, shared.inverse, NEAR * shared.d, stopped=stopped)
        safe = torch.as_tensor(secure(H, d.cpu().numpy(), True), device=d.device)
        bounds[r] = max(bounds[r], bounding(lone, replace(shared, d=safe, steps=steps), r))
        done += 1
    return bounds, done


def plain_bound(lone: SharedRows, split: wide.SharedSplit, row: int) -> float:
    """The bound of a lone row at its relaxation's point."""
    return float(wide.bounds(lone, split, wide.relax(lone, split)[0])[0])
