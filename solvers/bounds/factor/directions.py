"""Newton steps of an ascent in a factor's image: in some directions of it, or in all."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.factor.image import Coordinates, Image
from solvers.hessian import Array

LOOSE = 0.1
"""Relative residual at which conjugate gradients end: a step is halved where it is too long, no more."""
ITERATIONS = 60
"""Conjugate gradients a step at most."""


class Directions(Protocol):
    """A space of `y`: `p = up(y) = F'y`."""

    def up(self, y: Array) -> Array:
        """`[n]` of coordinates."""

    def down(self, v: Array) -> Array:
        """Coordinates of `F v`."""

    def newton(self, shares: Array, slopes: Array, width: float, gradient: Array) -> Array:
        """The Newton step of the smoothed bound, see `ascend`."""


class Few(Directions):
    """The strongest `rank` directions of a space, whose curvature is formed.

    Args:
        image: the row.
        Z: `[n, rank]`.
    """

    def __init__(self, image: Image, Z: Array) -> None:
        self.image, self.Z = image, Z

    def up(self, y: Array) -> Array:
        """See `Directions.up`."""
        return np.asarray(self.Z @ y)

    def down(self, v: Array) -> Array:
        """See `Directions.down`."""
        return np.asarray(v @ self.Z)

    def newton(self, shares: Array, slopes: Array, width: float, gradient: Array) -> Array:
        """See `Directions.newton`: a factorisation."""
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


class All(Directions):
    """The whole image: steps by conjugate gradients, in single precision, preconditioned by some directions.

    In the span of Q the preconditioner is the curvature itself, beside it one.

    Args:
        image: the row.
        space: the directions of the preconditioner.
    """

    def __init__(self, image: Image, space: Coordinates) -> None:
        self.image, self.Q, self.few = image, space.Q, Few(image, space.Z)

    def up(self, y: Array) -> Array:
        """See `Directions.up`."""
        return np.asarray(self.image.hessian.pull_back(y[None])[0])

    def down(self, v: Array) -> Array:
        """See `Directions.down`."""
        return np.asarray(self.image.hessian.image(v[None])[0])

    def newton(self, shares: Array, slopes: Array, width: float, gradient: Array) -> Array:
        """See `Directions.newton`."""
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
