"""Dual ascent for a row in a factor's image: Newton steps on smoothed shares, the smoothing falling.

A step is taken in some of the image's directions, whose curvature is formed and factored, or in all of them,
by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.factor.image import Coordinates, Image
from solvers.bounds.waterfill import smoothed_shares
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
LOOSE = 0.1
"""Relative residual at which conjugate gradients end: a step is halved where it is too long, no more."""
ITERATIONS = 60
"""Conjugate gradients a step at most."""


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
    space: Few | All,
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


class Few:
    """The strongest `rank` directions of a space of `y`, whose curvature is formed.

    Args:
        image: the row.
        Z: `[n, rank]`.
    """

    def __init__(self, image: Image, Z: Array) -> None:
        self.image, self.Z = image, Z

    def up(self, y: Array) -> Array:
        """`[n]` `F'y` of coordinates y."""
        return np.asarray(self.Z @ y)

    def down(self, v: Array) -> Array:
        """Coordinates of `F v`."""
        return np.asarray(v @ self.Z)

    def newton(self, shares: Array, slopes: Array, width: float, gradient: Array) -> Array:
        """The Newton step of the smoothed bound (`ascend`), by a factorisation."""
        M = self.curvature(shares, slopes, width)
        L = scipy.linalg.cho_factor(M, lower=True, overwrite_a=True)
        return np.asarray(scipy.linalg.cho_solve(L, gradient))

    def curvature(self, shares: Array, slopes: Array, width: float) -> Array:
        """The negative generalised Hessian of the smoothed bound, `[r, r]`."""
        image, Z = self.image, self.Z
        M = np.eye(Z.shape[1])
        if image.refit:
            on = np.flatnonzero(shares > 0.0)
            root = Z[on] * np.sqrt(shares[on] / image.ridge[on])[:, None]
            M += root.T @ root
        free = _free(shares)
        if len(free):
            V = Z[free] * (slopes[free] / np.sqrt(width))[:, None]
            V -= _pool_means(V, image.labels[free])
            M += V.T @ V
        return M


class All:
    """The whole image: steps by conjugate gradients, in single precision, preconditioned by some directions.

    In the span of Q the preconditioner is the curvature itself, beside it one.

    Args:
        image: the row.
        space: the directions of the preconditioner.
    """

    def __init__(self, image: Image, space: Coordinates) -> None:
        self.image, self.Q, self.few = image, space.Q, Few(image, space.Z)

    def up(self, y: Array) -> Array:
        """`[n]` `F'y` of coordinates y."""
        return np.asarray(self.image.hessian.pull_back(y[None])[0])

    def down(self, v: Array) -> Array:
        """Coordinates of `F v`."""
        return np.asarray(self.image.hessian.image(v[None])[0])

    def newton(self, shares: Array, slopes: Array, width: float, gradient: Array) -> Array:
        """The Newton step of the smoothed bound (`ascend`), by conjugate gradients."""
        image, Q = self.image, self.Q
        inner = scipy.linalg.cho_factor(
            self.few.curvature(shares, slopes, width), lower=True, overwrite_a=True
        )
        free = _free(shares)
        used = np.flatnonzero(shares > 0.0) if image.refit else free
        F = image.hessian.root(used, np.float32)
        diagonal = shares[used] / image.ridge[used] if image.refit else np.zeros(len(used))
        place, slope = np.searchsorted(used, free), slopes[free] / np.sqrt(width)

        def curve(v: Array) -> Array:
            u = F.T @ v.astype(F.dtype)
            out = diagonal * u
            if len(free):
                part = slope * u[place]
                out[place] += slope * (part - _pool_means(part[:, None], image.labels[free])[:, 0])
            return np.asarray(v + F @ out.astype(F.dtype))

        def precondition(v: Array) -> Array:
            inside = Q.T @ v
            return np.asarray(v + Q @ (scipy.linalg.cho_solve(inner, inside) - inside))

        x, r = np.zeros_like(gradient), gradient.copy()
        z = precondition(r)
        direction, size = z, float(r @ z)
        enough = LOOSE**2 * size
        for _ in range(ITERATIONS):
            product = curve(direction)
            length = size / float(direction @ product)
            x += length * direction
            r -= length * product
            z = precondition(r)
            before, size = size, float(r @ z)
            if size <= enough:
                break
            direction = z + (size / before) * direction
        return x


def _free(shares: Array) -> NDArray[np.int64]:
    return np.flatnonzero((shares > 0.0) & (shares < 1.0))


def _pool_means(V: Array, labels: NDArray[np.int64]) -> Array:
    """`[f, r]` the mean of its pool's rows at every row; labels never fall."""
    first = np.flatnonzero(np.diff(labels, prepend=-1))
    sizes = np.diff(np.append(first, len(labels)))
    means = np.add.reduceat(V, first, axis=0) / sizes[:, None]
    return np.asarray(means if len(means) == 1 else np.repeat(means, sizes, axis=0))
