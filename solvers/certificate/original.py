"""Proofs about a reduced problem, restated for the numbers that the original problem's file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from solvers.certificate.claims import claims
from solvers.certificate.grouped import resecured
from solvers.certificate.points import Terms
from solvers.certificate.proof import Proof
from solvers.certificate.subtrees import secured
from solvers.checker.piece import make_piece
from solvers.checker.problem import Problem, parse_problem
from solvers.checker.reduced import reduce_problem
from solvers.hessian import FactorHessian
from solvers.problem import SubsetProblem


def stored(problem: SubsetProblem) -> Problem:
    """A problem as the checker reads it from its instance file."""
    H = problem.hessian
    fields: dict[str, Any] = {"weights": problem.W, "refit": problem.refit, "movable": problem.movable}
    fields |= problem.budget.describe()
    if isinstance(H, FactorHessian):
        fields |= {"factor": H.X, "damping": H.damping}
    else:
        fields["hessian"] = H.dense(0) if H.shared else np.stack([H.dense(r) for r in range(problem.m)])
    if problem.G is not None:
        fields["gradient"] = problem.G
    return parse_problem({name: np.asarray(value) for name, value in fields.items()})


def as_it_is(problem: SubsetProblem) -> bool:
    """Whether solvers work on the stored numbers themselves, so that their proofs hold as they are.

    Otherwise rounding lies between the two: of a Schur complement, a shift by `H^-1 g`, a product
    `X'X / N`, or a sum over rows.
    """
    shifted = problem.refit and problem.G is not None
    summed = problem.budget.kind == "columns" and not problem.refit
    factor = isinstance(problem.hessian, FactorHessian)
    return not (len(problem.movable) or shifted or summed or factor)


def restate(problem: SubsetProblem, proofs: Sequence[Proof]) -> list[tuple[Proof, Terms]]:
    """Proofs with splits and claims that hold for the stored numbers, offset included.

    Args:
        problem: the original.
        proofs: about its reduction.

    Raises:
        ValueError: if the curvature is too close to singular for a certified split.
    """
    this = stored(problem)
    reduced = reduce_problem(this)
    labels = problem.pools.labels
    out = []
    for proof in proofs:
        row = int(proof.rows[0])
        pools = labels[0 if problem.pools.coupled else row]
        pools = np.zeros_like(pools) if problem.budget.kind == "per_layer" else pools - pools[0]
        prune = np.bincount(pools, minlength=len(proof.keep)) - proof.keep
        piece = make_piece(this, reduced, proof.rows, prune)
        if proof.blocks is not None:
            proof = resecured(proof, piece.H[0], piece.H_error[0])
        else:
            d = secured(piece.H, proof.splits, proof.roots, problem.refit, piece.H_error)
            proof = replace(proof, d=d)
        terms = Terms(
            piece.refit, piece.H, piece.H_error if piece.H_error.any() else None, piece.b,
            2.0 * piece.b_error, piece.constant - 2.0**-50 * abs(piece.constant), piece.floor, pools,
        )  # fmt: skip
        out.append((replace(proof, claim=claims(terms, proof)), terms))
    return out
