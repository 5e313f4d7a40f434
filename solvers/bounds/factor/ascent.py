"""Maximising the bound of an image: Newton steps on smoothed shares, the smoothing falling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from solvers.bounds.factor.directions import All, Directions, Few
from solvers.bounds.factor.image import Coordinates, Image
from solvers.bounds.factor.smoothing import smoothed_shares
from solvers.hessian import Array

RISE = 0.5
"""Share of the smoothing's error that a step must still be worth for the smoothing to stay."""
COARSE = 0.1
"""Tolerance where not all directions are in use, of the value of a mask."""
LARGE = 0.01
"""Least tolerance of selections whose image is too large for all of its directions to be found."""
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
    Z, rank = space.Z, space.Z.shape[1]
    b = space.Q.T @ image.b
    state = _State(np.zeros(0), np.zeros(len(image.w)), 0.0)
    reach = np.sqrt(2.0 * abs(value)) * np.linalg.norm(Z, axis=1) * np.abs(image.slopes(state.p))
    state.width = float(np.ptp(image.scores(state.p)) + reach.mean()) or 1.0
    partial = rank < len(image.b)
    least = NOTHING * abs(value)
    for level in (*(r for r in LEVELS if r < rank), rank):
        state.y = np.append(state.y, np.zeros(level - len(state.y)))
        coarse = partial or level < rank
        _climb(
            image,
            Few(image, Z[:, :level]),
            b[:level],
            state,
            COARSE if coarse else tolerance,
            abs(value) if coarse else least,
            coarse,
            stopped,
        )
    y = space.Q @ state.y
    if partial:
        whole = All(image, space)
        state.y, state.p = y, whole.up(y)
        enough = tolerance if image.refit else max(tolerance, LARGE)
        _climb(image, whole, image.b, state, enough, least, False, stopped)
        y = state.y
    scores = image.scores(state.p)
    shares = smoothed_shares(scores, image.labels, image.take, state.width)
    return Relaxed(y, shares, scores, image.lower_bound(y), state.steps)


@dataclass
class _State:
    """Where an ascent is: `p = F'y`."""

    y: Array
    p: Array
    width: float
    steps: int = 0


def _climb(
    image: Image,
    space: Directions,
    b: Array,
    state: _State,
    tolerance: float,
    least: float,
    coarse: bool,
    stopped: Callable[[], object],
) -> None:
    """Newton steps in a space's coordinates until relaxed value and bound are close."""
    for _ in range(STEPS):
        if stopped():
            return
        y, p, width = state.y, state.p, state.width
        scores, slopes = image.scores(p), image.slopes(p)
        shares = smoothed_shares(scores, image.labels, image.take, width)
        gradient = b - y - space.down(shares * slopes)
        level = float(b @ y) - 0.5 * float(y @ y)
        taken = float(shares @ scores)
        smooth = level - _penalty(shares, scores, width)
        gap = float(scores[image.largest(scores)].sum()) - taken
        away = 0.5 * float(gradient @ gradient)
        close = tolerance * max(level - taken + image.constant, least)
        if gap + away <= close:
            return
        step = space.newton(shares, slopes, width, gradient)
        state.steps += 1
        rise = float(gradient @ step)
        if coarse and gap + rise <= close:
            return
        if rise <= RISE * gap and gap > 0.5 * close:
            state.width *= SHRINK
            continue
        along = space.up(step)
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
