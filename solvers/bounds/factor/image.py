"""The Lagrangian dual of a row whose curvature is a factor: a concave function on the factor's image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.bounds.evaluate import margin
from solvers.hessian import Array, BlockDiagonalHessian, FactorHessian
from solvers.hessian.factor import strongest
from solvers.problem import Mask, SubsetProblem

Factored = FactorHessian | BlockDiagonalHessian

RANK = 1024
"""Dimensions of an image up to which all of its directions are found; of a larger one so many."""


@dataclass(frozen=True)
class Image:
    """One row of a problem with `H = F'F + diag(e)`; any y of the image's space `R^N` gives a bound.

    From `1/2 |F x|^2 >= y.F x - 1/2 |y|^2`, with what is left separable:

        selection  LB(y) = -1/2 |y|^2 + sum over pools of the smallest `prune` of
                           t = w o F'y + 1/2 e o w^2 - c
        joint      LB(y) = y.F w - 1/2 |y|^2 + 1/2 sum e w^2
                           - sum over pools of the largest `keep` of q^2 / (2 e),  q = F'y + e o w

    which is the bound of the split `d = e` (`solvers.bounds.evaluate`), `y = F u` there. Both are
    `b.y - 1/2 |y|^2 + constant - sum of the largest `take` scores`.

    Attributes:
        refit: joint, or selection.
        hessian: the curvature.
        w: `[n]` the row's weights.
        linear: `[n]` the term c of a selection, `g o w`.
        ridge: `[n]` e; positive when joint.
        b: `[N]` `F w` when joint, zero for selections.
        constant: see above.
        labels: `[n]` pools, counted from 0.
        take: `[pools]` entries whose scores are taken: kept when joint, pruned for selections.
    """

    refit: bool
    hessian: Factored
    w: Array
    linear: Array
    ridge: Array
    b: Array
    constant: float
    labels: NDArray[np.int64]
    take: NDArray[np.int64]

    def scores(self, p: Array) -> Array:
        """`[n]` scores at `p = F'y`: `q^2 / (2 e)`, or `-t`."""
        if self.refit:
            q = p + self.ridge * self.w
            return np.asarray(q * q / (2.0 * self.ridge))
        return np.asarray(self.linear - self.w * p - 0.5 * self.ridge * self.w**2)

    def slopes(self, p: Array) -> Array:
        """`[n]` derivatives of the scores by p."""
        return np.asarray((p + self.ridge * self.w) / self.ridge if self.refit else -self.w)

    def largest(self, scores: Array) -> Mask:
        """`[n]`, every pool's `take` largest scores."""
        order = np.lexsort((-scores, self.labels))
        sizes = np.bincount(self.labels, minlength=len(self.take))
        rank = np.arange(len(scores)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        taken = np.zeros(len(scores), dtype=bool)
        taken[order[rank < self.take[self.labels[order]]]] = True
        return taken

    def lower_bound(self, y: Array) -> float:
        """LB(y), lowered by an a priori estimate of the rounding in its evaluation."""
        N, n = len(y), len(self.w)
        gamma = margin(max(n, N) + 8)
        p = self.hessian.pull_back(y[None, :])[0]
        length = float(np.linalg.norm(y))
        columns = np.sqrt(np.maximum(self.hessian.diagonal() - self.ridge, 0.0) + gamma * self.ridge)
        error = gamma * (columns * length * (1.0 + gamma) + self.ridge * np.abs(self.w))
        if self.refit:
            q = np.abs(p + self.ridge * self.w)
            slack = (2.0 * q + error) * error / (2.0 * self.ridge)
        else:
            slack = np.abs(self.w) * error + gamma * np.abs(self.linear)
        optimistic = self.scores(p) + slack
        counted = optimistic[self.largest(optimistic)]
        taken, size = float(counted.sum()), float(np.abs(counted).sum())
        moved = float(self.w @ p) if self.refit else 0.0
        rounding = gamma * (0.5 * length**2 + size + self.constant)
        if self.refit:
            rounding += gamma * float(np.abs(self.w) @ np.abs(p)) + float(np.abs(self.w) @ error)
        return max(self.floor, moved - 0.5 * length**2 + self.constant - taken - rounding)

    @property
    def floor(self) -> float:
        """A cost that no mask goes below: zero, but for selections with a linear term."""
        return 0.0 if self.refit or not self.linear.any() else -np.inf


def images(problem: SubsetProblem) -> list[Image]:
    """The images of a reduced problem's rows; rows that share a `per_layer` budget are laid side by side.

    Raises:
        ValueError: for curvatures that are not factors, and columns of several rows.
    """
    hessian = problem.hessian
    if not isinstance(hessian, Factored) or (
        isinstance(hessian, BlockDiagonalHessian) and not hessian.factored
    ):
        raise ValueError("hessian: an image can be had of factors only, and of blocks of factors")
    if problem.m > 1 and problem.pools.coupled:
        raise ValueError(
            f"budget {problem.budget.kind!r} is shared by {problem.m} rows of a factor that is never formed; "
            "solve the rows one by one, or take swapping"
        )
    if problem.m > 1 and problem.budget.kind == "per_layer":
        hessian = BlockDiagonalHessian([hessian] * problem.m)
        problem = SubsetProblem(
            problem.W.reshape(1, -1), hessian, problem.budget, refit=problem.refit,
            gradient=None if problem.G is None else problem.G.reshape(1, -1),
        )  # fmt: skip
    found, ridge, pools = [], hessian.ridge, problem.pools
    for r, w in enumerate(problem.W):
        labels = pools.labels[r] - pools.labels[r, 0]
        first = pools.labels[r, 0]
        counts = (pools.keep if problem.refit else pools.prune)[first : first + labels[-1] + 1]
        linear = np.zeros(problem.n) if problem.G is None else problem.G[r] * w
        image = hessian.image(w[None, :])[0]
        constant = 0.5 * float(ridge @ (w * w)) if problem.refit else 0.0
        b = image if problem.refit else np.zeros_like(image)
        found.append(Image(problem.refit, hessian, w, linear, ridge, b, constant, labels, counts))
    return found


@dataclass(frozen=True)
class Coordinates:
    """Directions of an image's space: `Q [N, r]`, orthonormal, and `Z = F'Q [n, r]`."""

    Q: Array
    Z: Array


def coordinates(image: Image) -> Coordinates:
    """The strongest directions of `F diag(w)` (of F when joint), strongest first.

    All of the directions up to `RANK`; beyond, some (`solvers.hessian.factor.strongest`).
    """
    hessian, N = image.hessian, len(image.b)
    squares = np.ones_like(image.w) if image.refit else image.w**2
    if N <= RANK:
        F = hessian.root()
        Q = np.ascontiguousarray(scipy.linalg.eigh((F * squares) @ F.T)[1][:, ::-1])
        return Coordinates(Q, F.T @ Q)

    if image.refit and isinstance(hessian, FactorHessian):
        return Coordinates(*hessian.sketch())
    return Coordinates(*strongest(hessian, squares, RANK))


def sketched(image: Image, space: Coordinates) -> Image:
    """The image with the curvature of its strongest directions, and what they leave of the diagonal.

    `H~ = Z Z' + diag(e + rest)`, with the diagonal of H: a model of the row to search in, not to bound.
    """
    rank = space.Z.shape[1]
    rest = np.maximum(image.hessian.diagonal() - image.ridge - (space.Z**2).sum(axis=1), 0.0)
    model = FactorHessian(np.sqrt(rank) * space.Z.T)
    ridge, b = image.ridge + rest, space.Q.T @ image.b
    constant = 0.5 * float(ridge @ image.w**2) if image.refit else 0.0
    return replace(image, hessian=model, ridge=ridge, b=b, constant=constant)
