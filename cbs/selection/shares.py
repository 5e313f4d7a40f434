"""One budget for all layers: how many weights each row gives, by the curves of what so many cost."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from cbs.curvature.output import row_scales
from cbs.curvature.stored import OneByOne
from cbs.quadratic import Diagonal, Quadratic
from cbs.selection.base import Job
from cbs.selection.separable import separable_curves
from solvers import Budget, Solver
from solvers.allocation import allocate
from solvers.form.reduction import reduce
from solvers.greedy.curves import GreedyCurves, row_curves
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.together import WIDEST

WORK = 2e11
"""Multiplications that the elimination of a layer's rows may take, one for the cube of its inputs each; some
rows stand for all of a layer that has more."""
FEWEST = 16
"""Rows that do so at least."""
EXACT = ("auto", "branch-and-bound")
"""Solvers for which a network's shared budget is searched."""


def shares(
    job: Job, solver: Solver, *, refit: bool, bias: bool, widest: int | None, proving: bool
) -> list[Mask]:
    """Masks of one budget for the network.

    The objectives of rows, scaled by `E[(dL/da_r)^2]` to be comparable, add up. Which counts are best is
    decided exactly from curves, what a row costs at every count. These are greedy; or, for a solver that
    proves optimality, tightened until they prove the allocation, as far as layers too wide to search allow.

    Args:
        job: the run.
        solver: the method's.
        refit: whether the problem is the joint one.
        bias: whether the bias moves.
        widest: rows of more inputs are not searched; None for `WIDEST`.
        proving: whether what is proven bounds the layers' objectives; that goes to the references.
    """
    network, request = job.network, job.request
    if sum(int(mask.sum()) for mask in network.earlier) == request.network_count(network.layers):
        return [mask.copy() for mask in network.earlier]  # nothing to choose, and nothing to prove
    scales = row_scales(network) if job.curvature.scaled else [np.ones(len(mask)) for mask in network.earlier]
    widest = WIDEST if widest is None else widest
    apart = isinstance(job.quadratics, OneByOne)  # too many to be searched together
    apart = apart or any(layer.tokens for layer in network.layers)  # whose rows are too many
    small = not apart and any(layer.shape[1] <= widest for layer in network.layers)
    if small and request.certify and solver.name in EXACT:
        return _proven(job, scales, refit, bias, widest, patience=solver.name == "auto", proving=proving)
    curves = greedy_curves(job, refit=refit, bias=bias)
    scaled = [
        scale * values
        for row, layer in zip(scales, curves, strict=True)
        for scale, values in zip(row, layer.values, strict=True)
    ]
    counts = allocate(scaled, request.network_count(network.layers))
    ends = np.cumsum([layer.shape[0] for layer in network.layers])[:-1]
    return [curve.masks(k) for curve, k in zip(curves, np.split(counts, ends), strict=True)]


def _proven(
    job: Job, scales: list[Array], refit: bool, bias: bool, widest: int, *, patience: bool, proving: bool
) -> list[Mask]:
    """Masks of one budget for the network, whose bound goes to the references where it is about the same."""
    network = job.network
    count = job.request.network_count(network.layers)
    ends = np.cumsum([layer.size for layer in network.layers])
    parts = np.diff(count * ends // ends[-1], prepend=0).tolist()
    problems = [
        model.problem(Budget.per_layer(part), refit=refit, bias=bias, scales=row)
        for model, part, row in zip(job.quadratics, parts, scales, strict=True)
    ]
    found = job.watch.solve_together(problems, share=0.4, patience=patience, widest=widest)
    job.stats["sharing"] = {**found.stats, "seconds": found.seconds, "status": found.status.value}
    if proving:
        rounding = sum(8 * problem.n * np.finfo(float).eps * problem.scale for problem in problems)
        job.references.learn_total(count, found.bound - rounding)
    else:
        job.stats["objective"] = {"value": found.value, "bound": found.bound, "gap": found.gap}
    return [mask[:, problem.prunable] for problem, mask in zip(problems, found.masks, strict=True)]


def greedy_curves(job: Job, *, refit: bool = True, bias: bool = True) -> list[GreedyCurves]:
    """Every layer's greedy row curves, unscaled, its bias eliminated; computed once for a curvature.

    Args:
        job: the run.
        refit: whether they are of the joint problem.
        bias: whether the bias moves.
    """

    def compute() -> list[GreedyCurves]:
        return [
            separable_curves(model)
            if isinstance(model.H, Diagonal)
            else _curves(model, refit, bias, job.network.executor)
            for model in job.quadratics
        ]

    return job.network.memo(("curves", job.curvature, refit, bias), compute)


def _curves(model: Quadratic, refit: bool, bias: bool, executor: Executor | None) -> GreedyCurves:
    """A layer's greedy row curves."""
    problem = reduce(model.problem(Budget.per_layer(0), refit=refit, bias=bias)).problem
    count = max(FEWEST, int(WORK / problem.n**3))
    if refit and problem.hessian.shared and count < problem.m:
        from cbs.selection.sampled import sampled_curves

        return sampled_curves(problem.W, problem.hessian, count, executor)
    return row_curves(problem.W, problem.hessian, refit=refit, gradient=problem.G, executor=executor)
