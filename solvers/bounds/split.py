"""Choosing the split `H = R + diag(d)`, `R >= 0`, on which every bound's strength depends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.linalg

from solvers.bounds.interior.scaling import split_alone, split_batch
from solvers.bounds.secure import secure
from solvers.bounds.shared import relaxation as wide
from solvers.bounds.shared.rows import SharedRows, alike
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.hessian.base import units
from solvers.runtime.parallel import side_by_side

Stopped = Callable[[], object]

WIDE = 160
"""Inputs above which rows of one curvature share a split by default."""
TOLERANCE = 5e-4
"""Complementarity gap at which splits are good enough for bounds, as a share of a quick mask's cost."""
LOOSE = 1e-2
"""Tolerance of splits that others start from: a way off the boundary, later steps gain more."""
BATCH_BYTES = 1 << 30
"""Memory that one batch of interior-point work may take."""
STEP_WORK = 1 << 28
"""Cubes of inputs in a batch on a CPU, where more gain nothing and limits are polled between steps."""


@dataclass(frozen=True)
class Split:
    """A split of one block and the relaxation's solution there.

    Attributes:
        d: `[g, n]` with `H_g - diag(d_g)` positive semidefinite beyond rounding; positive when joint.
        z: `[n]` relaxed indicators, the share kept.
        steps: interior-point steps taken.
    """

    d: Array
    z: Array
    steps: int


def split_blocks(
    found: Sequence[Block],
    *,
    device: str = "cpu",
    stopped: Stopped = lambda: None,
    tolerance: float = TOLERANCE,
) -> list[Split]:
    """The best split of every block: narrow ones side by side, others in batches of one shape.

    Wide rows of one curvature share a split (`representative`).

    Args:
        found: the blocks.
        device: torch device.
        stopped: polled often; a true answer ends the work soon, with valid splits of less worth.
        tolerance: complementarity gap at which to stop, as a share of a quick mask's cost.
    """
    if representable(found):
        return representative(found, device, stopped)
    out: list[Split | None] = [None] * len(found)
    lone: list[int] = []
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, block in enumerate(found):
        if block.trivial or (block.refit and len(block.H) > 1):
            out[i] = _separate(block, device, stopped)
        elif block.n <= WIDE and device == "cpu":
            lone.append(i)
        else:
            key = (block.refit, block.B.shape, block.labels.tobytes())
            groups.setdefault(key, []).append(i)
    work = partial(_alone, stopped, tolerance)
    for i, split in zip(lone, side_by_side(work, [found[i] for i in lone]), strict=True):
        out[i] = split
    for members in groups.values():
        n = found[members[0]].n
        most = min(BATCH_BYTES // (8 * 24 * n**2), STEP_WORK // n**3 if device == "cpu" else len(members))
        size = max(1, most)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            splits = _batch([found[i] for i in part], device, stopped, tolerance)
            for i, split in zip(part, splits, strict=True):
                out[i] = split
    return [split for split in out if split is not None]


def _alone(stopped: Stopped, tolerance: float, block: Block) -> Split:
    if stopped():
        return _hasty([block])[0]
    d, z, steps = split_alone(block, tolerance)
    return Split(secure(block.H[0], d, block.refit)[None], z, steps)


def _batch(found: list[Block], device: str, stopped: Stopped, tolerance: float) -> list[Split]:
    if stopped():
        return _hasty(found)
    points = split_batch(found, device=device, stopped=stopped, tolerance=tolerance)
    return [
        Split(secure(block.H[0], d, block.refit)[None], z, steps)
        for block, (d, z, steps) in zip(found, points, strict=True)
    ]


def representable(found: Sequence[Block]) -> bool:
    """Whether blocks are wide, lone joint rows of one curvature, with pools of one size."""
    return found[0].n > WIDE and alike(found)


def representative(found: Sequence[Block], device: str, stopped: Stopped = lambda: None) -> list[Split]:
    """One split for many wide rows, and indicators of their own from their relaxations at it."""
    rows = SharedRows.stacked(found, device)
    shared = wide.choose(rows, stopped)
    _, z = wide.relax(rows, shared, stopped)
    d = shared.d.cpu().numpy()[None]
    return [Split(d, share, shared.steps) for share in z.cpu().numpy()]


def _hasty(found: Sequence[Block]) -> list[Split]:
    """Valid splits that cost next to nothing, and are worth as much; one for all joint rows of a curvature.

    A selection's matrix is what it leaves on the diagonal by Gershgorin's discs, which takes no factor.
    """
    out: list[Split] = []
    for before, block in zip([None, *found], found, strict=False):
        if before is not None and block.refit and before.H.ctypes.data == block.H.ctypes.data:
            d = out[-1].d
        else:
            d = np.stack([_narrowest(H, block.refit) for H in block.H])
        out.append(Split(d, _even(block), 0))
    return out


def _narrowest(H: Array, positive: bool) -> Array:
    if positive:
        return secure(H, 1e-9 * np.abs(np.diagonal(H)), True)
    size = np.abs(H)
    radius = size.sum(axis=1) - np.diagonal(size)
    rounding = 4.0 * len(H) * np.finfo(float).eps * (radius + np.diagonal(size))
    return np.asarray(np.diagonal(H) - radius - rounding)


def _even(block: Block) -> Array:
    return np.asarray((block.keep / np.bincount(block.labels))[block.labels], dtype=np.float64)


def _separate(block: Block, device: str, stopped: Stopped) -> Split:
    """Blocks without an interior get `d = lambda_min` at unit diagonal; several curvatures one by one."""
    if block.trivial and stopped():
        return _hasty([block])[0]
    if block.trivial:
        d = np.stack([_lowest(H, block.refit) for H in block.H])
        return Split(d, _even(block), 0)
    parts = [
        Block(
            True,
            H[None],
            B[None],
            W[None],
            0.5 * float((W * B).sum()),
            block.labels,
            block.keep,
            block.rows[i : i + 1],
        )
        for i, (H, B, W) in enumerate(zip(block.H, block.B, block.W, strict=True))
    ]
    splits = split_blocks(parts, device=device, stopped=stopped)
    return Split(
        np.concatenate([s.d for s in splits]), np.mean([s.z for s in splits], axis=0), splits[0].steps
    )


def _lowest(H: Array, positive: bool) -> Array:
    scale = units(np.diagonal(H))
    low = float(scipy.linalg.eigvalsh(scale[:, None] * H * scale, subset_by_index=[0, 0])[0])
    return secure(H, low / (scale * scale), positive)
