"""Certificates from what a search proved, completed by root relaxations, alone or together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from solvers.bounds.curves import KNOTS, WIDE_KNOTS
from solvers.bounds.split import WIDE, split_blocks
from solvers.budget import Budget
from solvers.certificate.certificate import Certificate, Part
from solvers.certificate.claims import plain_proof, root_proof
from solvers.certificate.original import image_proof, restated, stored
from solvers.certificate.proof import BlockProofs, ImagePoints, Proof
from solvers.certificate.witness import Witness
from solvers.checker.claims import ImageClaim
from solvers.checker.problem import Problem
from solvers.checker.proofs import Prover, Refuted
from solvers.checker.verify import shown_value
from solvers.form.blocks import Block, blocks
from solvers.form.reduction import reduce
from solvers.hessian import Array, FactorHessian
from solvers.problem import Mask, SubsetProblem


def certify(
    problem: SubsetProblem,
    mask: Mask,
    proofs: BlockProofs | ImagePoints = (),
    *,
    shared: bool = False,
    device: str = "cpu",
    stopped: Callable[[], object] = lambda: None,
) -> Certificate:
    """A certificate of a mask, from what a search proved, and from root relaxations of all other rows.

    Every proof is held against the checker (`solvers.checker`) on the way, and claims what that shows: what
    is written verifies. A proof that shows nothing is left out.

    Args:
        problem: what was asked.
        mask: the best mask found.
        proofs: about the blocks of the reduced problem (`solvers.form.reduction.reduce`); where rows share a
            budget, about a row and a count each, in any number. Of a curvature that is not formed, points
            of its images in their place.
        shared: the mask's count need not be that of the problem's `per_layer` budget, which it will share
            with other problems (`together`).
        device: torch device of the relaxations.
        stopped: polled often; a true answer leaves relaxations of less worth.

    Raises:
        ValueError: if the mask misses the budget, no file can hold the curvature, or it is too close to
            singular for anything to be certified.
    """
    check_certifiable(problem)
    counted = problem.with_budget(Budget.per_layer(int(mask.sum()))) if shared else problem
    mask, this = counted.check(mask), stored(problem)
    with np.errstate(all="ignore"):
        try:
            if problem.hessian.implicit:
                points = proofs.points if isinstance(proofs, ImagePoints) else ()
                return Certificate((_imaged(counted, this, mask, points),))
            given = () if isinstance(proofs, ImagePoints) else proofs
            return Certificate((_proven(problem, counted.value(mask), this, mask, given, device, stopped),))
        except (ArithmeticError, Refuted) as error:
            raise ValueError(f"certify: {error}; add damping") from None


def check_certifiable(problem: SubsetProblem) -> None:
    """Raise ValueError if no certificate of a problem could be written, whatever a search finds."""
    H = problem.hessian
    if H.implicit and not isinstance(H, FactorHessian):
        raise ValueError(
            "certify: only a single factor can be written to an instance file, not blocks of them"
        )
    if (
        H.implicit
        and isinstance(H, FactorHessian)
        and not H.damping
        and (problem.refit or len(problem.movable))
    ):
        raise ValueError("certify: a factor that is not formed needs a damping > 0 where weights move")


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


def _proven(
    problem: SubsetProblem,
    value: float,
    this: Problem,
    mask: Mask,
    proofs: BlockProofs,
    device: str,
    stopped: Callable[[], object],
) -> Part:
    """What proofs about rows of decisions show."""
    witness = Witness(this)
    restate = restated(problem, this, witness.prover.reduced[0])
    for proof in proofs:
        witness.take(restate(proof))
    smaller = reduce(problem).problem
    for proof in _missing(smaller, witness.proofs, device, stopped):
        witness.take(restate(proof))
    counts = np.zeros(problem.m, np.int64) if problem.budget.kind == "per_layer" else None
    covered = {int(proof.rows[0]) for proof in witness.proofs}
    for block in blocks(smaller, counts):
        if int(block.rows[0]) not in covered:
            witness.take(plain_proof(block))
    low, high, _ = witness.value(mask)
    layer = problem.budget.kind == "per_layer"
    return Part(
        this.digest, mask, _within(value, low, high), problem.budget.kind,
        int(problem.pools.prune[0]) if layer else 0, tuple(witness.proofs),
        tuple(witness.prover.curves(0)) if layer else (), witness.scale,
    )  # fmt: skip


def _imaged(problem: SubsetProblem, this: Problem, mask: Mask, points: Sequence[Array]) -> Part:
    """What a point shows of a curvature that is not formed."""
    total = int(problem.pools.prune[0]) if problem.budget.kind == "per_layer" else 0
    proof = image_proof(problem, mask, points)
    if not np.isfinite(proof.claim):
        raise Refuted("the factor's numbers are too far apart for a bound")
    claim = ImageClaim(0, proof.v, proof.claim)
    prover = Prover([this], [claim])
    prover.take_image(claim, proof.claim)
    low, high, _ = shown_value(this, mask, prover)
    value = _within(problem.value(mask), low, high)
    return Part(this.digest, mask, value, problem.budget.kind, total, (), image=proof)


def _within(value: float, low: Fraction, high: Fraction) -> float:
    """A value as floating point found it, if it lies where it has to; else the middle of the interval."""
    return value if low <= value <= high else float((low + high) / 2)


def _missing(
    problem: SubsetProblem, proofs: Sequence[Proof], device: str, stopped: Callable[[], object]
) -> list[Proof]:
    """Root proofs of rows that have none; at several counts, where rows share a budget."""
    if problem.budget.kind != "per_layer":
        known = {int(proof.rows[0]) for proof in proofs}
        return _roots(
            [block for block in blocks(problem) if int(block.rows[0]) not in known], device, stopped
        )
    n = problem.n
    done = {(int(proof.rows[0]), proof.prune) for proof in proofs if len(proof.entry) == 1}
    knots = KNOTS if n <= WIDE else WIDE_KNOTS
    counts = sorted({0, n, *(min(max(round(share * n), 0), n) for share in knots)})
    found: list[Proof] = []
    for k in counts:
        these = blocks(problem, np.full(problem.m, k))
        found += _roots([block for block in these if (int(block.rows[0]), k) not in done], device, stopped)
    return found


def _roots(found: list[Block], device: str, stopped: Callable[[], object]) -> list[Proof]:
    if not found:
        return []
    try:
        splits = split_blocks(found, device=device, stopped=stopped)
    except (ValueError, ArithmeticError):  # too close to singular for floating point
        return []
    return [root_proof(b, s) for b, s in zip(found, splits, strict=True)]
