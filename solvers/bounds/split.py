"""Choosing the diagonal split `H = R + diag(d)`, `R >= 0`, on which every bound's strength depends.

d weighs the perspective terms (joint) or convexifies the quadratic (selection); the best one makes the
relaxation as strong as the semidefinite programme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

import numpy as np
import scipy.linalg

from solvers.bounds.interior.interior_point import saddle_point
from solvers.bounds.interior.saddle import Data
from solvers.bounds.secure import secure
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows, alike
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.hessian.base import units
from solvers.runtime.parallel import side_by_side

MAX_STEPS = 40
"""Newton steps at most."""

Point = tuple[Array, Array, int]
WIDE = 160
"""Inputs above which rows of one curvature share a split by default."""
TOLERANCE = 5e-4
"""Complementarity gap at which splits are good enough for bounds, as a share of a quick mask's cost."""
LOOSE = 1e-2
"""Tolerance of splits that others start from: a way off the boundary, later steps gain more."""
LEANING = 0.8
"""Part of the way to a quick mask at which the interior point of a selection begins."""
SMOOTH = 0.1
"""The same of a narrow selection's only split, for all of its tree: one that leaves `A - diag(d)` far from
singular is nearer to the best ones of what fixings leave than the root's best is."""


def best_split(block: Block, tolerance: float, stopped: Callable[[], object] = lambda: None) -> Point:
    """`d [n]`, the shares kept `z [n]`, and Newton steps, in one thread.

    Args:
        block: not trivial, of one curvature.
        tolerance: complementarity gap at which to stop, as a share of a quick mask's cost.
        stopped: polled between the steps of wide blocks; a true answer ends them, with a valid split.
    """
    data, unit = scaled(block)
    start = None if block.refit else _leaning(block, data.counts)
    z, d, steps = saddle_point(data, tolerance, MAX_STEPS, stopped, start)
    return d * unit, z if block.refit else 1.0 - z, steps


def scaled(block: Block) -> tuple[Data, Array]:
    """The block's data, with curvatures and optimum of order one, and the units `[n]` of d."""
    H, B, value = block.H[0], block.B[0], magnitude(block)
    counts = (block.keep if block.refit else block.prune).astype(np.float64)
    if not block.refit:
        unit = np.full(block.n, value)
        return Data(False, H / value, B / value, float(block.constant) / value, block.labels, counts), unit
    scale = units(np.diagonal(H))
    size = float((np.diagonal(H) * scale * scale).mean())
    A, right = scale[:, None] * H * scale / size, scale[:, None] * B / np.sqrt(size * value)
    return Data(True, A, right, float(block.constant) / value, block.labels, counts), size / (scale * scale)


def magnitude(block: Block) -> float:
    """The order of magnitude of the block's optimum: the value of a quick mask."""
    return max(abs(block.value(block.quick)), 1e-12 * abs(block.scale), np.finfo(float).tiny)


def _leaning(block: Block, counts: Array) -> Array:
    """`[n]` shares pruned, most of the way from even ones to a quick mask: a fourth fewer steps."""
    even = (counts / np.bincount(block.labels))[block.labels]
    return np.asarray(even + LEANING * (block.quick - even))


Stopped = Callable[[], object]


def keeps_one_split(refit: bool, n: int) -> bool:
    """Whether a tree does with its root's split: a narrow selection's, whose nodes cost less than splits."""
    return not refit and n <= WIDE


def at_first(refit: bool, n: int) -> float:
    """The tolerance of splits that trees begin with."""
    return SMOOTH if keeps_one_split(refit, n) else LOOSE


MEMORY, ENTRY_BYTES = 2 << 30, 100
"""Bytes that blocks in work may take together, and what one takes by entry of its curvature."""


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
    """The best split of every block, side by side; wide rows of one curvature share one (`representative`).

    Args:
        found: the blocks.
        device: torch device of what wide rows share.
        stopped: polled often; a true answer ends the work soon, with valid splits of less worth.
        tolerance: complementarity gap at which to stop, as a share of a quick mask's cost.
    """
    if representable(found):
        return representative(found, device, stopped)
    parts = [_parts(block) for block in found]
    most = MEMORY // (ENTRY_BYTES * found[0].n ** 2)
    splits = iter(side_by_side(partial(_best, stopped, tolerance), chain.from_iterable(parts), most))
    return [_joined(list(islice(splits, len(part)))) for part in parts]


def _best(stopped: Stopped, tolerance: float, block: Block) -> Split:
    """Of a block of one curvature; without an interior it gets `d = lambda_min` at unit diagonal."""
    H = block.H[0]
    even = np.asarray((block.keep / np.bincount(block.labels))[block.labels], dtype=np.float64)
    if stopped():
        return Split(_hasty(H, block.refit)[None], even, 0)
    if block.trivial:
        return Split(_lowest(H, block.refit)[None], even, 0)
    d, z, steps = best_split(block, tolerance, stopped)
    return Split(secure(H, d, block.refit)[None], z, steps)


def _parts(block: Block) -> list[Block]:
    """A block of one curvature, or one such block for each of its rows."""
    if len(block.H) == 1:
        return [block]
    return [
        replace(
            block,
            H=H[None],
            B=B[None],
            W=W[None],
            constant=0.5 * float((W * B).sum()),
            rows=block.rows[i : i + 1],
        )
        for i, (H, B, W) in enumerate(zip(block.H, block.B, block.W, strict=True))
    ]


def _joined(parts: list[Split]) -> Split:
    """The split of a block from those of its parts, whose indicators are averaged."""
    if len(parts) == 1:
        return parts[0]
    return Split(np.concatenate([s.d for s in parts]), np.mean([s.z for s in parts], axis=0), parts[0].steps)


def representable(found: Sequence[Block]) -> bool:
    """Whether blocks are wide, lone joint rows of one curvature, with pools of one size."""
    return found[0].n > WIDE and alike(found)


def representative(found: Sequence[Block], device: str, stopped: Stopped = lambda: None) -> list[Split]:
    """One split for many wide rows, and indicators of their own from their relaxations at it."""
    rows = SharedRows.stacked(found, device)
    shared = relaxation.choose(rows, stopped)
    _, z = relaxation.relax(rows, shared, stopped)
    d = shared.d.cpu().numpy()[None]
    return [Split(d, share, shared.steps) for share in z.cpu().numpy()]


def _hasty(H: Array, positive: bool) -> Array:
    """A valid split that costs next to nothing, and is worth as much.

    A selection's is what Gershgorin's discs leave on the diagonal, which takes no factor.
    """
    if positive:
        return secure(H, 1e-9 * np.abs(np.diagonal(H)), True)
    size = np.abs(H)
    radius = size.sum(axis=1) - np.diagonal(size)
    rounding = 4.0 * len(H) * np.finfo(float).eps * (radius + np.diagonal(size))
    return np.asarray(np.diagonal(H) - radius - rounding)


def _lowest(H: Array, positive: bool) -> Array:
    scale = units(np.diagonal(H))
    low = float(scipy.linalg.eigvalsh(scale[:, None] * H * scale, subset_by_index=[0, 0])[0])
    return secure(H, low / (scale * scale), positive)
