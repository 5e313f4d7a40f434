"""Proofs about a reduced problem, restated for the numbers that the original problem's file holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from solvers.bounds.factor.dual_ascent import ascend
from solvers.bounds.factor.image import coordinates, images
from solvers.certificate.groups import resecured
from solvers.certificate.points import secured
from solvers.certificate.proof import Proof
from solvers.checker.image import image_bound
from solvers.checker.piece import make_piece
from solvers.checker.problem import Problem, parse_problem
from solvers.checker.reduced import Reduced
from solvers.form.reduction import reduce
from solvers.hessian import Array, FactorHessian
from solvers.problem import Mask, SubsetProblem

MARGIN = 1e-12
"""Share of the bound that is not claimed: sums may round otherwise on another machine."""


def stored(problem: SubsetProblem) -> Problem:
    """A problem as the checker reads it from its instance file."""
    return parse_problem({name: np.asarray(value) for name, value in problem.describe().items()})


def as_it_is(problem: SubsetProblem) -> bool:
    """Whether solvers work on the stored numbers themselves, so that their proofs hold as they are.

    Otherwise rounding lies between the two: of a Schur complement, a shift by `H^-1 g`, a product
    `X'X / N`, or a sum over rows.
    """
    shifted = problem.refit and problem.G is not None
    summed = problem.pools.coupled and not problem.refit
    factor = isinstance(problem.hessian, FactorHessian)
    return not (len(problem.movable) or shifted or summed or factor)


def restated(problem: SubsetProblem, this: Problem, reduced: Reduced) -> Callable[[Proof], Proof]:
    """Turn proofs about a problem's reduction into such about its stored numbers.

    Args:
        problem: the original.
        this: the same as its file has it.
        reduced: that without its movable columns.

    Returns:
        What shrinks a split until it holds for the stored numbers, or leaves it if that can't be said in
        floating point. Claims are to be made anew.
    """
    if as_it_is(problem):
        return lambda proof: proof
    labels = problem.pools.labels

    def restate(proof: Proof) -> Proof:
        row = int(proof.rows[0])
        pools = labels[0 if problem.pools.coupled else row]
        pools = np.zeros_like(pools) if problem.budget.kind == "per_layer" else pools - pools.min()
        prune = np.bincount(pools, minlength=len(proof.keep)) - proof.keep
        piece = make_piece(this, reduced, proof.rows, prune)
        try:
            if proof.blocks is not None:
                return resecured(proof, piece.H[0], piece.H_error[0])
            d = secured(piece.H, proof.splits.astype(np.float64), proof.roots, problem.refit, piece.H_error)
        except ValueError:
            return proof
        return replace(proof, d=d)

    return restate


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
