"""Proofs about a reduced problem, restated for the numbers that the original problem's file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from solvers.certificate.grouped import resecured
from solvers.certificate.proof import Proof
from solvers.certificate.subtrees import secured
from solvers.checker.piece import make_piece
from solvers.checker.problem import Problem, parse_problem
from solvers.checker.reduced import Reduced
from solvers.hessian import FactorHessian
from solvers.problem import SubsetProblem


def stored(problem: SubsetProblem) -> Problem:
    """A problem as the checker reads it from its instance file."""
    return parse_problem({name: np.asarray(value) for name, value in problem.describe().items()})


def as_it_is(problem: SubsetProblem) -> bool:
    """Whether solvers work on the stored numbers themselves, so that their proofs hold as they are.

    Otherwise rounding lies between the two: of a Schur complement, a shift by `H^-1 g`, a product
    `X'X / N`, or a sum over rows.
    """
    shifted = problem.refit and problem.G is not None
    summed = problem.budget.kind == "columns" and not problem.refit
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
        pools = np.zeros_like(pools) if problem.budget.kind == "per_layer" else pools - pools[0]
        prune = np.bincount(pools, minlength=len(proof.keep)) - proof.keep
        piece = make_piece(this, reduced, proof.rows, prune)
        try:
            if proof.blocks is not None:
                return resecured(proof, piece.H[0], piece.H_error[0])
            d = secured(piece.H, proof.splits, proof.roots, problem.refit, piece.H_error)
        except ValueError:
            return proof
        return replace(proof, d=d)

    return restate
