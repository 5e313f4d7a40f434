"""`solve()`: one call from a problem to a judged solution; and the registry behind it."""

from __future__ import annotations

import difflib
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from solvers import cold_start
from solvers.budget import GROUPS, KINDS, POOLS, UNITS
from solvers.certificate import certify as make_certificate
from solvers.certificate import check_certifiable
from solvers.certificate.original import stored
from solvers.control import Callback, Control, check_limits, interruptible, is_number, share_limit
from solvers.exact.enumeration import least
from solvers.executors.door import borrowed
from solvers.executors.spread import warm
from solvers.form.reduction import reduce
from solvers.problem import Mask, SubsetProblem
from solvers.runtime.caches import spare_full_disks
from solvers.runtime.checkpoint import Checkpoint
from solvers.runtime.plain import plain, plainly
from solvers.runtime.plugins import plugins
from solvers.runtime.tensors import load_torch, on_cpu
from solvers.solution import Solution, Status, closes
from solvers.solver import Outcome, Solver

log = logging.getLogger(__name__)
PLUGINS = "cbs.solvers"
"""Group of the entry points by which installed packages add solvers of theirs."""


@cache
def built_in() -> Mapping[str, Solver]:
    """This package's solvers by name, in the order they are listed to users."""
    from solvers import exact, foreign, heuristics, peers, relaxations
    from solvers.auto import Auto

    rooms = (exact, foreign, relaxations, heuristics, peers)
    return {solver.name: solver for solver in (Auto(), *(each for room in rooms for each in room.SOLVERS))}


@cache
def registry() -> Mapping[str, Solver]:
    """Every solver by name: this package's, and after them those of others (`solvers.runtime.plugins`)."""
    known = built_in()
    return {**known, **plugins(PLUGINS, Solver, known, check=_check_listed)}  # type: ignore[type-abstract]


def available() -> dict[str, dict[str, Any]]:
    """Every solver: what it does and supports, what it proves, and whether it is installed."""
    return {name: _described(solver) for name, solver in registry().items()}


def _check_listed(solver: Solver) -> None:
    """Raise an error, in one line, for a solver that can't be listed."""
    _check_declared(solver)
    if not isinstance(_described(solver)["summary"], str):
        raise ValueError(f"solver {solver.name!r}: summary must be a line of text, got {solver.summary!r}")


def _described(solver: Solver) -> dict[str, Any]:
    return {
        "summary": solver.summary,
        "proves": solver.proves,
        "variants": list(solver.variants),
        "budgets": list(solver.budgets),
        "installed": solver.installed(),
        "resumable": solver.resumable,
        "install": solver.install_hint(),
    }


def get_solver(solver: str | Solver) -> Solver:
    """A solver by its name in `available()`, or the instance itself, which may be of a class of one's own.

    Raises:
        ValueError: for an unknown name (with the nearest known) or a missing dependency (with the
            line that installs it).
    """
    if isinstance(solver, Solver):
        _check_declared(solver)
        return solver
    if isinstance(solver, type) and issubclass(solver, Solver):
        raise ValueError(f"solver is the class {solver.__name__}; call it: {solver.__name__}()")
    known = built_in() if solver in built_in() else registry()
    if solver not in known:
        near = difflib.get_close_matches(str(solver), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown solver {solver!r}; {hint}")
    found = known[solver]
    if not found.installed():
        needs = f"solver {solver!r} needs {', '.join(found.requires)}"
        raise ValueError(needs if found.install_hint() is None else f"{needs}: {found.install_hint()}")
    return found


def _check_declared(solver: Solver) -> None:
    """Raise ValueError, in one line, unless a solver's class says what it is, in the words there are."""
    who, name = f"solver {type(solver).__name__}", getattr(solver, "name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{who} has no name; give its class one: name = 'mine'")
    for what, known in (("variants", ("joint", "selection")), ("budgets", (*KINDS, GROUPS, UNITS))):
        said = getattr(solver, what)
        if isinstance(said, str) or not set(said) <= set(known):
            raise ValueError(f"{who}: {what} must be a tuple of {', '.join(known)}, got {said!r}")


def _checked(outcome: object, solver: Solver, problem: SubsetProblem) -> Outcome:
    """What a solver answers to a reduced problem, its mask as booleans.

    Raises:
        ValueError: in one line with the solver's name, if it is no answer to that.
    """
    who = f"solver {solver.name!r}"
    if not isinstance(outcome, Outcome):
        raise ValueError(f"{who}: run must return a solvers.Outcome, got {type(outcome).__name__}")
    if not is_number(outcome.bound):
        raise ValueError(f"{who}: bound must be a number, -inf where none is known, got {outcome.bound!r}")
    if not isinstance(outcome.reason, Status):
        raise ValueError(f"{who}: reason must be a solvers.Status, got {outcome.reason!r}")
    try:
        return replace(outcome, mask=problem.check(outcome.mask))
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None


def check_support(solver: Solver, problem: SubsetProblem) -> None:
    """Raise ValueError, in one line, if a solver can't take a problem's variant, budget or size."""
    variant = "joint" if problem.refit else "selection"
    if variant not in solver.variants:
        raise ValueError(
            f"solver {solver.name!r} does not do the {variant} variant, only {', '.join(solver.variants)}"
        )
    kind = problem.budget.kind
    if (GROUPS if kind == POOLS else kind) not in solver.budgets:
        raise ValueError(
            f"solver {solver.name!r} does not do the budget {kind!r}, only {', '.join(solver.budgets)}"
        )
    reason = solver.refuses(problem)
    if reason:
        raise ValueError(f"solver {solver.name!r} can't take this problem: {reason}")


def _checkpoint(
    path: str | os.PathLike[str], problem: SubsetProblem, solver: Solver, **settings: Any
) -> Checkpoint:
    if not solver.resumable:
        known = ", ".join(name for name, each in registry().items() if each.resumable)
        raise ValueError(f"solver {solver.name!r} keeps no checkpoint, only {known}")
    if not solver.resumes(problem):
        raise ValueError(
            f"solver {solver.name!r} grows no tree of {problem.n} inputs that a checkpoint could keep; "
            "take branch-and-bound, or no checkpoint"
        )
    return Checkpoint(path, {"problem": stored(problem).digest, "solver": solver.settings(), **settings})


def solve(
    problem: SubsetProblem,
    solver: str | Solver = "auto",
    *,
    time_limit: float | None = None,
    gap: float = 1e-4,
    seed: int = 0,
    warm_start: ArrayLike | None = None,
    callback: Callback | None = None,
    device: str = "cpu",
    certify: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    executor: str | Executor | None = None,
) -> Solution:
    """Prune a layer: find a mask of the budget with the least loss increase, and a bound on it.

    Args:
        problem: what to prune.
        solver: a name from `available()`, or a `Solver`: with fields of your choice, or one of your own.
        time_limit: seconds of wall time; None for no limit. Compiling is not counted.
        gap: stop once `(value - bound) / |value|` is proven to be at most this.
        seed: seed of every random choice.
        warm_start: `[m, n]` mask to start from; the answer is never worse than it.
        callback: called with a `Progress` whenever the incumbent or bound moves, and about every second
            where neither does; return True to stop.
        device: torch device for batched array work.
        certify: also give a `Certificate` that `solvers.checker` verifies, of what the solver proved, and
            of root relaxations where it proves nothing. The search gets four fifths of a time limit, and
            these the rest; what is proven is checked whatever that takes. A bound that the solver did not
            reach is raised to the certificate's, which may lie below the bound of a solver that proves
            without a proof. None, and the reason in `stats["certificate"]`, if the curvature is too close
            to singular for rigorous arithmetic.
        checkpoint: file that the search is kept in, about every half minute and at its end, and gone on
            from if it is there; for the solvers that `available()` calls resumable. It belongs to a
            problem, solver, gap, seed and `certify`; a finished one gives the answer again at once. The
            solution's seconds are those of all runs. A full disk does not end the search:
            `stats["checkpoint_error"]` says why the file is not up to date.
        executor: whose workers search the rows in branch and bound: a `concurrent.futures.Executor`, or what
            `solvers.executor` makes one of, such as `processes`. What is found is the same. None for threads
            of this process, as for all that keeps a checkpoint.

    Returns:
        A `Solution` whose value is recomputed from the problem and whose bound is valid. Running out
        of time or Ctrl-C is a result, told by its `status`; Ctrl-C while the certificate is made leaves
        that out.

    Raises:
        ValueError: unknown, missing or unsuitable solver; a bad limit or seed; a warm start off the budget;
            a checkpoint that can't be written, is damaged, or belongs to something else; an executor that
            can't be reached.
    """
    check_limits(time_limit, gap, seed)
    chosen = get_solver(solver)
    check_support(chosen, problem)
    if certify:
        check_certifiable(problem)
    file = None
    if checkpoint is not None:
        file = _checkpoint(checkpoint, problem, chosen, gap=gap, seed=seed, certify=certify)
        file.check()
    with borrowed(executor) as workers:
        return _solve(
            problem, chosen, workers, time_limit, gap, seed, warm_start, callback, device, certify, file
        )


def _solve(
    problem: SubsetProblem, chosen: Solver, executor: Executor | None, time_limit: float | None, gap: float,
    seed: int, warm_start: ArrayLike | None, callback: Callback | None, device: str, certify: bool,
    file: Checkpoint | None,
) -> Solution:  # fmt: skip
    """`solve` of checked arguments."""
    if chosen.makes_tensors(problem, device):
        load_torch()
    spare_full_disks()
    run = partial(
        _run, problem, chosen, executor, time_limit, gap, seed, callback=callback, device=device,
        certify=certify, file=file,
    )  # fmt: skip
    spent = 0.0
    if not certify and file is None and executor is None and cold_start.suits(problem, chosen, device):
        start = time.perf_counter()
        with plainly():
            found = run(warm_start, start, cold_start.begin(problem))
        if isinstance(found, Solution):
            return found
        spent, warm_start = time.perf_counter() - start, found
    cold_start.make_ready(problem, chosen, device)
    like = problem if on_cpu(device) else None
    warm(executor, chosen, like)
    if certify:
        get_solver("relaxation").prepare(like)
    solution = run(warm_start, time.perf_counter() - spent)
    assert isinstance(solution, Solution)
    return solution


def _run(
    problem: SubsetProblem, chosen: Solver, executor: Executor | None, time_limit: float | None, gap: float,
    seed: int, warm_start: ArrayLike | None, start: float, given_up: Callable[[], bool] = lambda: False, *,
    callback: Callback | None, device: str, certify: bool, file: Checkpoint | None,
) -> Solution | Mask:  # fmt: skip
    """One search, by a clock that began at `start`; its mask alone where it was given up."""
    log.debug("%s begins on %r", chosen.name, problem)
    given = None if warm_start is None else problem.check(warm_start)
    reduction = reduce(problem)
    deadline, late = share_limit(start, time_limit, certify)
    control = Control(
        gap=gap, seed=seed, device=device, callback=callback, started=start, deadline=deadline,
        warm_start=None if given is None else reduction.lower(given),
        offset=reduction.offset, margin=reduction.margin, noise=reduction.problem.rounding,
        floor=problem.floor, lift=reduction.lift, certify=certify, checkpoint=file,
        executor=executor, given_up=given_up,
    )  # fmt: skip
    with interruptible(control):
        outcome = _checked(chosen.run(reduction.problem, control), chosen, reduction.problem)
        mask = reduction.lift(outcome.mask)
        if given is not None and problem.value(given) < problem.value(mask):
            mask = given
        timely = control.remaining is None or control.remaining > 0.0
        if outcome.reason is Status.TIME_LIMIT and timely and given_up():
            return mask
        if outcome.reason is Status.PATIENCE and plain():  # which is meant for compiled code
            return mask
        bound = control.told(outcome.bound)
        finished = outcome.reason in (Status.OPTIMAL, Status.FEASIBLE)
        proving = chosen.proves == "optimality" and finished
        if proving and not closes(bound, problem.value(mask), gap):
            best = least(problem, control.stopped)
            if best is not None:
                mask = min((mask, best.mask), key=problem.value)
                bound = max(bound, best.bound)
    certificate, reason, stats, rows = None, outcome.reason, outcome.stats, outcome.rows
    if rows is not None:
        rows = replace(
            rows, bound=np.maximum(rows.bound + reduction.offsets - reduction.margin, problem.floor)
        )
    if certify:
        try:
            certificate = make_certificate(problem, mask, outcome.proof or (), device=device, stopped=late)
            bound = max(bound, min(certificate.bound, problem.value(mask)))
        except KeyboardInterrupt:  # the answer is there; only its proof is not
            reason = Status.INTERRUPTED
        except ValueError as error:
            stats = {**stats, "certificate": str(error)}
    solution = Solution.judge(
        problem, mask, bound, reason, gap=gap,
        seconds=time.perf_counter() - start + (0.0 if file is None else file.spent),
        solver=chosen.name, stats=stats, trace=control.trace, certificate=certificate, rows=rows,
    )  # fmt: skip
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s ends: %s", chosen.name, " ".join(repr(solution).split()))
    return solution
