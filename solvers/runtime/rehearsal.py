"""Solvers run on tiny problems of every kind before any clock starts, so that all code is compiled by then.

Compiled code is kept beside its source (`solvers.runtime.caches`), so that only the first run after an
installation takes long; that one says so in the log of `solvers`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba.core import event

from solvers.budget import GROUPS, KINDS, POOLS, UNITS, Budget
from solvers.control import Control
from solvers.form.reduction import reduce
from solvers.hessian import FactorHessian
from solvers.problem import SubsetProblem
from solvers.runtime.plain import plain
from solvers.solver import Solver

COMPILING = "compiling, once for this installation: a minute or two"
"""The log's line when code is compiled that was not kept from an earlier run."""
VARIANTS = ("joint", "selection")

_log = logging.getLogger("solvers")
_ready: set[tuple[Solver, bool, str, str]] = set()


def rehearse(solver: Solver, like: SubsetProblem | None = None, *, certify: bool = True) -> None:
    """Run a solver on tiny problems of every kind that it takes; on those of a kind once a process.

    Args:
        solver: with fields that let it come to all of its code.
        like: a problem whose kind is to be rehearsed alone.
        certify: whether proofs are asked for, which may come to other code.
    """
    if plain():
        return
    kinds = {*product(solver.variants, solver.budgets)}
    if like is not None:
        variant, budget = kind(like)
        rows = {(variant, "per_row")} if budget == "per_layer" else set()  # which are searched one by one
        kinds &= {(variant, budget)} | rows
    todo = sorted(each for each in kinds if (solver, certify, *each) not in _ready)
    if not todo:
        return
    with compiling_is_told():
        for variant, budget in todo:
            for problem in tiny_problems((variant,), (budget,)):
                if solver.refuses(problem) is None:
                    solver.run(problem, Control(certify=certify))
            _ready.add((solver, certify, variant, budget))


def kind(problem: SubsetProblem) -> tuple[str, str]:
    """Variant and budget kind, as solvers get the problem: what decides which code it comes to."""
    budget = GROUPS if problem.budget.kind == POOLS else problem.budget.kind
    return "joint" if problem.refit else "selection", budget


def rehearse_arithmetic() -> None:
    """Have compiled what reductions and values need before and after any search, for every curvature."""
    if not plain():
        _do_sums()


@cache
def _do_sums() -> None:
    X = np.array([[2.0, 1.0, 0.5, -1.0], [0.5, 1.5, 1.0, 0.5]])
    H = X.T @ X + 1e-9 * np.eye(4)  # so near to singular that it takes doubled precision
    W = np.array([[2.0, -1.0, 0.1, 0.01], [1.0, 0.5, -2.0, 0.02]])
    factors = [FactorHessian(A, 1e-9) for A in (X, X.astype(np.float32))]
    with compiling_is_told():
        for hessian in (H, np.stack([H, H]), *factors):
            for refit, movable, gradient in product((True, False), ((), (1,)), (None, W)):
                problem = SubsetProblem(
                    W, hessian, Budget.per_row(1), refit=refit, movable=movable, gradient=gradient
                )
                for each in (problem, reduce(problem).problem):
                    each.refined(0, np.arange(each.n) == 0)


def tiny_problems(
    variants: Iterable[str] = VARIANTS, budgets: Iterable[str] = KINDS
) -> Iterator[SubsetProblem]:
    """Two rows of four weights, in every variant, under every budget, with one curvature and one a row."""
    X = np.array([[2.0, 1.0, 0.0, -1.0], [0.0, 1.5, 1.0, 0.5], [1.0, 0.0, 1.0, 0.0]])
    H = X.T @ X + 0.1 * np.eye(4)
    W = np.array([[2.0, -1.0, 0.1, 0.01], [1.0, 0.5, -2.0, 0.02]])
    half = {
        "per_row": Budget.per_row(2),
        "per_layer": Budget.per_layer(4),
        "n_of_m": Budget.n_of_m(1, 2),
        "columns": Budget.columns(2),
        GROUPS: Budget.groups((1, 3), (0, 2)),
        UNITS: Budget.columns(1, width=2),
    }
    for variant in variants:
        for kind in budgets:
            for hessian in (H, np.stack([H, 2.0 * H])):
                yield SubsetProblem(W, hessian, half[kind], refit=variant == "joint")


@contextmanager
def compiling_is_told() -> Iterator[None]:
    """Log one line as soon as something is compiled."""
    listener = _Listener()
    with event.install_listener("numba:compile", listener):
        yield


class _Listener(event.Listener):
    """Tells the first compilation."""

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        """See numba."""
        if not self.told:
            _log.info(COMPILING)
        self.told = True

    def on_end(self, event: Any) -> None:
        """See numba."""
