"""Maximising the bound of an image: Newton steps on smoothed shares, the smoothing falling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from solvers.bounds.factor.image import Coordinates, Image
from solvers.bounds.factor.smoothing import smoothed_shares
from solvers.hessian import Array

RISE = 0.5
"""Share of the smoothing's error that a step must still be worth for the smoothing to stay."""
COARSE = 0.1
"""Tolerance where not all directions are in use, of the value of a mask."""
SHRINK = 0.3
"""Factor by which the smoothing falls once its maximum is met."""
NOTHING = 1e-3
"""Relative to a mask's value, what a relaxed value is called nothing below."""
STEPS = 150
"""Newton steps at most in one number of directions."""
LEVELS = (32, 128, 512)
"""Numbers of directions that are climbed in before all of them, while steps are cheap."""


@dataclass(frozen=True)
class Relaxed:
    """What an ascent reached.

    Attributes:
        y: `[N]` where `Image.lower_bound` is about largest.
        shares: `[n]` relaxed indicators of what is taken: kept when joint, pruned for selections.
        scores: `[n]` scores at y.
        bound: rigorous, `Image.lower_bound(y)`.
        steps: Newton steps taken.
    """

    y: Array
    shares: Array
    scores: Array
    bound: float
    steps: int


def ascend(
    image: Image,
    space: Coordinates,
    value: float,
    *,
    tolerance: float = 1e-3,
    stopped: Callable[[], object] = lambda: None,
) -> Relaxed:
    """Maximise `LB(y)`, with the sum of the largest scores smoothed (Nesterov 2005).

    For a width `eps` the function `b.y - 1/2 |y|^2 + constant - max_z (z.s(y) - eps/2 |z|^2)` is concave
    with a continuous gradient `b - y - F (z o s')`, and its generalised Hessian

        -( I + F diag(z o s'') F' + (1/eps) sum over pools of V (I - 11'/|V|) V' ),
        V = F_i s'_i of the i with 0 < z_i < 1,

    is that of an active set, so that a Newton step costs one `r x r` factorisation. The width falls once
    steps gain little. For shares z the function `b.y - 1/2 |y|^2 + constant - z.s(y)` is strongly concave, so
    half its squared gradient limits how far the relaxed value lies above it; the end is reached when that
    limit and the bound differ by `tolerance` of it, or by `tolerance NOTHING value` where that is more.

    Args:
        image: the row.
        space: its directions, from `coordinates`.
        value: of a mask, to measure the tolerance against.
        tolerance: relative.
        stopped: polled between steps; a true answer ends them.
    """
    b, Z = space.Q.T @ image.b, space.Z
    state = _State(np.zeros(0), np.zeros(len(image.w)), 0.0)
    reach = np.sqrt(2.0 * abs(value)) * np.linalg.norm(Z, axis=1) * np.abs(image.slopes(state.p))
    state.width = float(np.ptp(image.scores(state.p)) + reach.mean()) or 1.0
    for rank in (*(r for r in LEVELS if r < len(b)), len(b)):
        state.y = np.append(state.y, np.zeros(rank - len(state.y)))
        if rank < len(b):
            _climb(image, Z[:, :rank], b[:rank], state, COARSE, abs(value), True, stopped)
        else:
            _climb(image, Z, b, state, tolerance, NOTHING * abs(value), False, stopped)
    y = space.Q @ state.y
    shares = smoothed_shares(image.scores(state.p), image.labels, image.take, state.width)
    return Relaxed(y, shares, image.scores(state.p), image.lower_bound(y), state.steps)


@dataclass
class _State:
    """Where an ascent is: `p = F'y`."""

    y: Array
    p: Array
    width: float
    steps: int = 0


def _climb(
    image: Image,
    Z: Array,
    b: Array,
    state: _State,
    tolerance: float,
    least: float,
    coarse: bool,
    stopped: Callable[[], object],
) -> None:
    """Newton steps in the coordinates that `Z [n, r]` has, until relaxed value and bound are close."""
    for _ in range(STEPS):
        if stopped():
            return
        y, p, width = state.y, state.p, state.width
        scores, slopes = image.scores(p), image.slopes(p)
        shares = smoothed_shares(scores, image.labels, image.take, width)
        gradient = b - y - (shares * slopes) @ Z
        level = float(b @ y) - 0.5 * float(y @ y)
        taken = float(shares @ scores)
        smooth = level - _penalty(shares, scores, width)
        gap = float(scores[image.largest(scores)].sum()) - taken
        away = 0.5 * float(gradient @ gradient)
        close = tolerance * max(level - taken + image.constant, least)
        if gap + away <= close:
            return
        M = _curvature(image, Z, shares, slopes, width)
        step = scipy.linalg.cho_solve(scipy.linalg.cho_factor(M, lower=True, overwrite_a=True), gradient)
        state.steps += 1
        rise = float(gradient @ step)
        if coarse and gap + rise <= close:
            return
        if rise <= RISE * gap and gap > 0.5 * close:
            state.width *= SHRINK
            continue
        along = Z @ step
        for halving in range(20):
            length = 0.5**halving
            to, q = y + length * step, p + length * along
            trial = image.scores(q)
            z = smoothed_shares(trial, image.labels, image.take, width)
            reached = float(b @ to) - 0.5 * float(to @ to) - _penalty(z, trial, width)
            if reached >= smooth + 1e-4 * length * rise:
                state.y, state.p = to, q
                break
        else:
            state.width *= SHRINK


def _penalty(shares: Array, scores: Array, width: float) -> float:
    """`max_z z.s - width/2 |z|^2` at its maximiser."""
    return float(shares @ scores) - 0.5 * width * float(shares @ shares)


def _curvature(image: Image, Z: Array, shares: Array, slopes: Array, width: float) -> Array:
    """The negative generalised Hessian of the smoothed bound, `[r, r]`."""
    M = np.eye(Z.shape[1])
    if image.refit:
        on = np.flatnonzero(shares > 0.0)
        root = Z[on] * np.sqrt(shares[on] / image.ridge[on])[:, None]
        M += root.T @ root
    free = np.flatnonzero((shares > 0.0) & (shares < 1.0))
    if len(free):
        V = Z[free] * (slopes[free] / np.sqrt(width))[:, None]
        first = np.flatnonzero(np.diff(image.labels[free], prepend=-1))
        sizes = np.diff(np.append(first, len(free)))
        V -= np.repeat(np.add.reduceat(V, first, axis=0) / sizes[:, None], sizes, axis=0)
        M += V.T @ V
    return M
