"""`solve_together()`: several layers that share one budget, with one certified gap."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from solvers.budget import Budget
from solvers.certificate import Certificate, together
from solvers.certificate import certify as make_certificate
from solvers.control import Callback, Control, check_limits, interruptible, share_limit
from solvers.exact.branch_and_bound import BranchAndBound, compile_kernels
from solvers.exact.curves.layer import share_budget
from solvers.exact.enumeration import least_together
from solvers.executors.door import borrowed
from solvers.executors.spread import warm
from solvers.form.reduction import reduce
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.caches import spare_full_disks
from solvers.runtime.tensors import load_torch, tensors_help
from solvers.solution import Bounds, Status, check_bounds, closes
from solvers.summary import between, first, number, summary

WIDEST = 128
"""Inputs up to which rows are searched."""


@dataclass(frozen=True)
class Together:
    """Masks of several problems that prune a number of weights together.

    Attributes:
        masks: `[m, n]` of every problem, True where pruned.
        weights: `[m, n]` of every problem after pruning.
        values: loss increase of every problem, recomputed from it.
        bound: no masks that prune as many together have a smaller sum of loss increases.
        status: why the search stopped; `OPTIMAL` exactly when `gap` is at most the gap asked for.
        seconds: wall time.
        stats: counts and choices.
        certificate: `solvers.certificate.Certificate` of the bound, or None.
    """

    masks: tuple[Mask, ...]
    weights: tuple[Array, ...]
    values: tuple[float, ...]
    bound: float
    status: Status
    seconds: float
    stats: Mapping[str, Any] = field(default_factory=dict)
    certificate: Certificate | None = None

    def __repr__(self) -> str:
        pruned = [f"{int(mask.sum())} of {mask.size} weights pruned" for mask in self.masks]
        return summary(
            f"Together, {len(self.masks)} problems: {self.status.value}, {self.status.remedy}",
            between(self.value, self.bound, self.gap),
            *first([f"{line}, value {number(v)}" for line, v in zip(pruned, self.values, strict=True)]),
            f"{self.seconds:.2f} s",
        )

    @property
    def value(self) -> float:
        """Sum of the loss increases."""
        return float(sum(self.values))

    @property
    def gap(self) -> float:
        """`(value - bound) / |value|`, 0 if they are equal."""
        return Bounds(self.bound, self.value).gap


def solve_together(
    problems: Sequence[SubsetProblem],
    *,
    gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    certify: bool = False,
    widest: int | None = WIDEST,
    device: str = "cpu",
    executor: str | Executor | None = None,
) -> Together:
    """Prune several layers under one budget: the sum of what their `per_layer` budgets prune.

    The loss increases of the problems add, so whatever makes them comparable (a factor a row: weights, and
    gradient if any, times its root) has to be in their numbers. How much each row gives is decided by
    dynamic programming over row curves, whose bounds are tightened where the allocation looks, until they
    prove it. Rows that are too wide for that keep the relaxation's bounds, with which the gap of the whole
    is as valid, only wider.

    Args:
        problems: with `per_layer` budgets.
        gap: stop once `(value - bound) / |value|` of the whole is proven to be at most this.
        time_limit: seconds of wall time; None for no limit. Compiling is not counted.
        seed: of every random choice.
        callback: called with a `Progress` of all problems together; return True to stop.
        certify: also give a `Certificate`, for `cbs verify` with the problems' files in this order. The
            search gets four fifths of a time limit, and what is left to certify the rest. A bound that the
            search did not reach is raised to the certificate's. None, and the reason in
            `stats["certificate"]`, if a curvature is too close to singular for rigorous arithmetic.
        widest: rows of more inputs are not searched; None searches all.
        device: torch device for batched array work.
        executor: whose workers prepare and search the rows: a `concurrent.futures.Executor`, or what
            `solvers.executor` makes one of, such as `processes` or `dask:tcp://host:8786`. What is found is
            the same as without, but for what a time limit or Ctrl-C cuts off. None for threads of this
            process.

    Returns:
        A `Together`. After a time limit or Ctrl-C, the best found and a valid bound.

    Raises:
        ValueError: no problems, a budget of another kind, a bad limit, or an executor that can't be reached.
    """
    check_limits(time_limit, gap, seed)
    if not problems:
        raise ValueError("problems is empty; give at least one")
    for i, problem in enumerate(problems):
        if problem.budget.kind != "per_layer":
            raise ValueError(
                f"problem {i} has a {problem.budget.kind} budget; only per_layer ones can be shared"
            )
    with borrowed(executor) as workers:
        return _together(problems, workers, gap, time_limit, seed, callback, certify, widest, device)


def _together(
    problems: Sequence[SubsetProblem], executor: Executor | None, gap: float, time_limit: float | None,
    seed: int, callback: Callback | None, certify: bool, widest: int | None, device: str,
) -> Together:  # fmt: skip
    """`solve_together` of checked arguments."""
    if any(tensors_help(problem, device) for problem in problems):
        load_torch()
    spare_full_disks()
    compile_kernels()
    warm(executor, BranchAndBound())
    start = time.perf_counter()
    reductions = [reduce(problem) for problem in problems]
    deadline, late = share_limit(start, time_limit, certify)
    control = Control(
        gap=gap, seed=seed, device=device, callback=callback, started=start, deadline=deadline,
        offset=sum(reduction.offset for reduction in reductions), certify=certify,
        margin=sum(reduction.margin for reduction in reductions),
        noise=sum(reduction.problem.rounding for reduction in reductions),
        floor=sum(problem.floor for problem in problems), executor=executor,
    )  # fmt: skip
    with interruptible(control):
        found = share_budget([reduction.problem for reduction in reductions], control, widest=widest)
    masks = [reduction.lift(mask) for reduction, mask in zip(reductions, found.masks, strict=True)]
    counted = _counted(problems, masks)
    values = tuple(problem.value(mask) for problem, mask in zip(counted, masks, strict=True))
    bound = control.told(found.bound)
    if found.reason in (Status.OPTIMAL, Status.FEASIBLE) and not closes(bound, sum(values), gap):
        total = sum(int(problem.pools.prune[0]) for problem in problems)
        if (best := least_together(problems, total, control.stopped)) is not None:
            bound = max(bound, best[2])
            if best[1] < sum(values):
                masks = best[0]
                counted = _counted(problems, masks)
                values = tuple(problem.value(mask) for problem, mask in zip(counted, masks, strict=True))
    seconds = control.seconds
    certificate, reason, stats = None, found.reason, dict(found.stats)
    value = float(sum(values))
    if certify:
        try:
            parts = [
                make_certificate(problem, mask, proofs, shared=True, device=device, stopped=late)
                for problem, mask, proofs in zip(problems, masks, found.proofs, strict=True)
            ]
            certificate = together(parts, shared=True)
            bound = max(bound, min(certificate.bound, value))
        except KeyboardInterrupt:  # the answer is there; only its proof is not
            reason = Status.INTERRUPTED
        except ValueError as error:
            stats["certificate"] = str(error)
    check_bounds(bound, value, sum(problem.scale for problem in problems))
    bound = min(bound, value)
    proven = closes(bound, value, gap)
    if proven or reason is Status.OPTIMAL:
        reason = Status.OPTIMAL if proven else Status.FEASIBLE
    weights = tuple(problem.weights(mask) for problem, mask in zip(counted, masks, strict=True))
    return Together(tuple(masks), weights, values, bound, reason, seconds, stats, certificate)


def _counted(problems: Sequence[SubsetProblem], masks: Sequence[Mask]) -> list[SubsetProblem]:
    """The problems under budgets of what masks prune."""
    counts = [Budget.per_layer(int(mask.sum())) for mask in masks]
    return [problem.with_budget(budget) for problem, budget in zip(problems, counts, strict=True)]
