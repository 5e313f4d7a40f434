"""Certificates from what a search proved, completed by root relaxations, alone or together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from solvers.bounds.curves import KNOTS, WIDE_KNOTS
from solvers.bounds.split import WIDE, split_blocks
from solvers.budget import Budget
from solvers.certificate.certificate import Certificate, Part
from solvers.certificate.claims import plain_proof, root_proof
from solvers.certificate.original import image_proof, restated, stored
from solvers.certificate.proof import DIAGONAL, MARGIN, BlockProofs, ImagePoints, Proof
from solvers.checker.claims import Claim, ImageClaim
from solvers.checker.piece import Piece
from solvers.checker.problem import Problem
from solvers.checker.proofs import Prover, Refuted, Shown
from solvers.checker.verify import shown_value
from solvers.form.blocks import Block, blocks
from solvers.form.reduction import reduce
from solvers.hessian import Array, FactorHessian
from solvers.problem import Mask, SubsetProblem

SHRINKS = (1e-12, 1e-9, 1e-6, 1e-3, 0.5)
"""Shares by which a split is made smaller, if the checker can't see that it is one."""


class Witness:
    """Collects the proofs about a problem that the checker accepts.

    Attributes:
        problem: as its file has it.
        prover: the checker's.
        proofs: about rows of decisions, with the claims that they show.
        scale: size of the terms that bounds are sums of.

    Raises:
        ArithmeticError: if the checker can't eliminate the movable columns.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.prover = Prover([problem])
        self.proofs: list[Proof] = []
        self._scales: dict[int, float] = {}

    @property
    def scale(self) -> float:
        """Size of the terms that the bounds of all rows are sums of."""
        return sum(self._scales.values())

    def value(self, mask: Mask) -> tuple[Fraction, Fraction, float]:
        """Ends of the interval that holds what a mask costs, and the size of its terms.

        Raises:
            Refuted: if a row has no proof with a finite bound, or there is no such interval.
        """
        if self.problem.kind == "per_layer":
            low = min(float(curve.min()) for curve in self.prover.curves(0))
        else:
            rows = range(1 if self.problem.shared else self.problem.m)
            low = min(self.prover.row_bound(0, row) for row in rows)
        if not np.isfinite(low):
            raise Refuted(f"the proofs show no finite bound, but {low!r}")
        return shown_value(self.problem, mask, self.prover)

    def take(self, proof: Proof) -> bool:
        """Take a proof, or a weaker one if it is not shown to be one; return whether any was taken."""
        for trial in weaker(proof, self.problem.refit):
            claim = _claim(trial, self.problem)
            try:
                shown = self.prover.shown(claim)
            except Refuted:
                continue
            claims = np.full(len(trial.entry), -np.inf)
            claims[shown.nodes] = lowered(shown)
            trial = replace(trial, claim=claims)
            if not trial.bounding.any() or not np.isfinite(trial.bound):
                continue
            self.prover.take(replace(claim, claim=claims), shown)
            self._scales[claim.row] = max(_size(shown.piece), self._scales.get(claim.row, 0.0))
            self.proofs.append(trial)
            return True
        return False


def lowered(shown: Shown) -> Array:
    """`[leaves]` what a proof may claim: what it shows, less a margin; what holds by signs alone as it is."""
    margin = MARGIN * (_size(shown.piece) + np.abs(shown.bounds))
    finite = np.isfinite(shown.bounds)
    return np.where(
        finite, np.maximum(shown.bounds - np.where(finite, margin, 0.0), shown.piece.floor), shown.bounds
    )


def weaker(proof: Proof, refit: bool) -> Iterator[Proof]:
    """A proof, and the same with ever smaller splits.

    Splits in blocks have no others: their definiteness does not follow from that of larger ones.
    """
    yield proof
    if proof.blocks is None:
        size = np.abs(proof.splits)
        for share in SHRINKS:
            yield replace(
                proof,
                d=proof.splits - share * (size if refit else np.fmax.reduce(size, axis=2, keepdims=True)),
            )


def _size(piece: Piece) -> float:
    if piece.refit:
        return abs(piece.constant)
    return abs(piece.constant) + 0.5 * float(np.abs(piece.H).sum()) + float(np.abs(piece.b).sum())


def _claim(proof: Proof, problem: Problem) -> Claim:
    """A proof in the terms of a certificate file."""
    blocks = proof.blocks or DIAGONAL
    entry, pruned, kept, vector, split, pair, crossing = (
        np.asarray(part, np.int64)
        for part in (
            proof.entry, proof.pruned, proof.kept, proof.vector, proof.owner, blocks.pair,
            blocks.counts(len(proof.splits)),
        )
    )  # fmt: skip
    d, cross, price = (part.astype(np.float64) for part in (proof.splits, blocks.cross, blocks.price))
    prune = proof.prune if problem.kind == "per_layer" else -1
    return Claim(
        0, int(proof.rows[0]), prune, d, proof.roots, entry, pruned, kept, vector, split,
        proof.u, proof.claim, pair, cross, price, crossing,
    )  # fmt: skip


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
    if problem.pools.width > 1:
        raise ValueError("certify: no certificate knows columns that go in units; leave `certify` out")
    if not H.implicit:
        return
    if not isinstance(H, FactorHessian):
        raise ValueError(
            "certify: only a single factor can be written to an instance file, not blocks of them"
        )
    if not H.damping and (problem.refit or len(problem.movable)):
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
