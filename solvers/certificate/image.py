"""Proofs about curvatures that are known by a factor: a point of the factor's image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solvers.bounds.factor.dual_ascent import ascend
from solvers.bounds.factor.image import coordinates, images
from solvers.certificate.original import stored
from solvers.checker.image import image_bound
from solvers.form.reduction import reduce
from solvers.hessian import Array, FactorHessian
from solvers.problem import Mask, SubsetProblem

MARGIN = 1e-12
"""Share of the bound that is not claimed: sums may round otherwise on another machine."""


@dataclass(frozen=True)
class ImageProof:
    """A bound on all rows of a problem with `H = X'X / N + c I`, by `solvers.checker.image.image_bound`.

    Attributes:
        v: `[m, N]`; for a mask's best move D about `X D / N`.
        claim: the bound.
    """

    v: Array
    claim: float


def image_proof(problem: SubsetProblem, mask: Mask, points: Sequence[Array]) -> ImageProof:
    """The proof that points of the reduced problem make, or those of a relaxation where there are none.

    Args:
        problem: with a factor.
        mask: of the budget; its value is the relaxation's scale.
        points: y of every image of the reduced problem (`solvers.bounds.factor.image.Image.lower_bound`).
    """
    H = problem.hessian
    assert isinstance(H, FactorHessian)
    reduction = reduce(problem)
    if not points:
        value = problem.value(mask) - reduction.offset
        points = [ascend(image, coordinates(image), value).y for image in images(reduction.problem)]
    y = np.concatenate(points).reshape(problem.m, H.N)
    v = -original_point(problem, H, y) / np.sqrt(H.N)
    claim = image_bound(stored(problem), v)
    floor = 0.0 if problem.G is None else -np.inf
    return ImageProof(v, max(claim - MARGIN * (abs(claim) + problem.scale * np.finfo(float).eps), floor))


def original_point(problem: SubsetProblem, H: FactorHessian, y: Array) -> Array:
    """Points `[m, N]` of the problem itself from those of its reduction.

    The reduction shifts moves by `s = H^-1 g`, or by `s_b = H_bb^-1 g_b`, and leaves out those of movable
    columns b: `F D = R F~ D~ - F s`, with the R of `FactorHessian.compensated`.
    """
    b, G = problem.movable, problem.G
    if len(b):
        y = H.compensated(b, y.T).T
    if G is None or not (problem.refit or len(b)):
        return y
    moving = np.arange(problem.n) if problem.refit else b
    step = np.zeros(problem.W.shape)
    step[:, moving] = H.solve(0, moving, G[:, moving].T).T
    return np.asarray(y + H.image(step))
