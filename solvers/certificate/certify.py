"""Certificates from what a search proved, completed by root relaxations, alone or together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solvers.blocks import Block, blocks
from solvers.bounds.curves import KNOTS, WIDE_KNOTS
from solvers.bounds.split import WIDE, split_blocks
from solvers.budget import Budget
from solvers.certificate.certificate import Certificate, Part
from solvers.certificate.claims import root_curve, root_proof
from solvers.certificate.image import image_proof
from solvers.certificate.original import as_it_is, restate, stored
from solvers.certificate.points import Terms
from solvers.certificate.proof import Proof
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.reduction import reduce


def certify(
    problem: SubsetProblem,
    mask: Mask,
    proofs: Sequence[Proof] | Sequence[Array] = (),
    *,
    shared: bool = False,
    device: str = "cpu",
) -> Certificate:
    """A certificate of a mask, from what a search proved, and from root relaxations of all other rows.

    Args:
        problem: what was asked.
        mask: the best mask found.
        proofs: about the blocks of the reduced problem (`solvers.reduction.reduce`); where rows share a
            budget, about a row and a count each, in any number. Of a curvature that is not formed, points
            of its reduced images (`image_proof`) in their place.
        shared: the mask's count need not be that of the problem's `per_layer` budget, which it will share
            with other problems (`together`).
        device: torch device of the relaxations.

    Raises:
        ValueError: if the mask misses the budget, or the curvature is too close to singular for a
            certified split.
    """
    counted = _recounted(problem, int(mask.sum())) if shared else problem
    if problem.hessian.wide:
        return _imaged(counted, counted.check(mask), [y for y in proofs if isinstance(y, np.ndarray)])
    proofs = [proof for proof in proofs if isinstance(proof, Proof)]
    proofs += _missing(reduce(problem).problem, proofs, device)
    layer = problem.budget.kind == "per_layer"
    curves: list[Array] = []
    if as_it_is(problem):
        terms = None
        if layer:
            found = blocks(problem, np.zeros(problem.m, np.int64))
            terms = [Terms.of(found[int(proof.rows[0])]) for proof in proofs]
    else:
        restated = restate(problem, proofs)
        proofs, terms = [proof for proof, _ in restated], [these for _, these in restated]
    if layer:
        assert terms is not None
        curves = _curves(problem, proofs, terms)
    total = int(problem.pools.prune[0]) if layer else 0
    part = Part(
        stored(problem).digest, counted.check(mask), counted.value(mask), problem.budget.kind, total,
        tuple(proofs), tuple(curves),
    )  # fmt: skip
    return Certificate((part,))


def together(certificates: Sequence[Certificate], *, shared: bool = False) -> Certificate:
    """One certificate of several problems, whose values and bounds add.

    Args:
        certificates: of the problems, in the order in which their files will be given to the checker.
        shared: whether their `per_layer` budgets are one budget, met only by all masks together.

    Raises:
        ValueError: if problems with other budgets are to share.
    """
    parts = tuple(part for certificate in certificates for part in certificate.parts)
    wrong = [part.kind for part in parts if part.kind != "per_layer"]
    if shared and wrong:
        raise ValueError(f"only per_layer budgets can be shared, got {wrong[0]!r}")
    if shared and any(part.image for part in parts):
        raise ValueError("a problem whose curvature is not formed has no curves; certify it on its own")
    return Certificate(parts, shared)


def _imaged(problem: SubsetProblem, mask: Mask, points: Sequence[Array]) -> Certificate:
    """The certificate of a curvature that is not formed."""
    total = int(problem.pools.prune[0]) if problem.budget.kind == "per_layer" else 0
    proof = image_proof(problem, mask, points)
    digest, value = stored(problem).digest, problem.value(mask)
    return Certificate((Part(digest, mask, value, problem.budget.kind, total, (), (), proof),))


def _recounted(problem: SubsetProblem, prune: int) -> SubsetProblem:
    return SubsetProblem(
        problem.W, problem.hessian, Budget.per_layer(prune),
        refit=problem.refit, gradient=problem.G, movable=problem.movable,
    )  # fmt: skip


def _missing(problem: SubsetProblem, proofs: Sequence[Proof], device: str) -> list[Proof]:
    """Root proofs of rows that have none; at several counts, where rows share a budget."""
    if problem.budget.kind != "per_layer":
        known = {int(proof.rows[0]) for proof in proofs}
        return _roots([block for block in blocks(problem) if int(block.rows[0]) not in known], device)
    n = problem.n
    done = {(int(proof.rows[0]), proof.prune) for proof in proofs if len(proof.entry) == 1}
    knots = KNOTS if n <= WIDE else WIDE_KNOTS
    counts = sorted({0, n, *(min(max(round(share * n), 0), n) for share in knots)})
    found: list[Proof] = []
    for k in counts:
        these = blocks(problem, np.full(problem.m, k))
        found += _roots([block for block in these if (int(block.rows[0]), k) not in done], device)
    return found


def _roots(found: list[Block], device: str) -> list[Proof]:
    if not found:
        return []
    return [root_proof(b, s) for b, s in zip(found, split_blocks(found, device=device), strict=True)]


def _curves(problem: SubsetProblem, proofs: Sequence[Proof], terms: Sequence[Terms]) -> list[Array]:
    """Every row's bound at every count: of trees at their own, of roots at all; joint costs never fall."""
    n = len(problem.prunable)
    curves = [np.full(n + 1, -np.inf) for _ in range(problem.m)]
    for proof, these in zip(proofs, terms, strict=True):
        curve, k = curves[int(proof.rows[0])], proof.prune
        np.maximum(curve, these.floor, out=curve)
        curve[k] = max(curve[k], proof.bound)
        if len(proof.entry) == 1:
            np.maximum(curve, root_curve(these, proof), out=curve)
        if problem.refit:
            np.maximum.accumulate(curve, out=curve)
    return curves
