"""Proofs held against the checker before they are written: they claim what it shows, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from solvers.certificate.proof import OffDiagonal, Proof
from solvers.checker.claims import Claim
from solvers.checker.piece import Piece
from solvers.checker.problem import Problem
from solvers.checker.proofs import Prover, Refuted, Shown
from solvers.checker.verify import shown_value
from solvers.hessian import Array
from solvers.problem import Mask

MARGIN = 2.0**-46
"""Share of a bound's terms that is not claimed: sums may be rounded otherwise on another machine."""
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
            rows = range(1 if self.problem.kind == "columns" else self.problem.m)
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

    A split in blocks has no others: their definiteness does not follow from that of a larger one.
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
    none = OffDiagonal(np.zeros((0, 2), np.int32), np.zeros(0), np.zeros(0))
    blocks = proof.blocks or none
    entry, pruned, kept, vector, split, pair = (
        np.asarray(part, np.int64)
        for part in (proof.entry, proof.pruned, proof.kept, proof.vector, proof.owner, blocks.pair)
    )
    prune = proof.prune if problem.kind == "per_layer" else -1
    return Claim(
        0, int(proof.rows[0]), prune, proof.splits, proof.roots, entry, pruned, kept, vector, split,
        proof.u, proof.claim, pair, blocks.cross, blocks.price,
    )  # fmt: skip
