"""Random problems, every solver that takes them, and no two statements that contradict each other."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from solvers import Budget, FactorHessian, Solution, SubsetProblem, available, get_solver, solve
from solvers.solution import CLAMP
from solvers.solve import check_support

SLOW = (
    "cvxpy",
    "cvxpy-plain",
    "cvxpy-sdp",
    "highs",
    "outer-approximation",
    "okridge",
    "l0bnb",
    "el0ps",
    "abess",
)
"""Solvers that begin a process, or take tenths of a second on the smallest problem."""
EVERY = 25
"""They get one problem in so many."""
SEARCHING = ("factor-search", "tabu", "portfolio")
"""Solvers that look for better masks as long as they may."""
LIMIT, BRIEF = 20.0, 0.05
"""Seconds of a solve, and of one of theirs."""


def problem(seed: int) -> SubsetProblem:
    """A small problem: any budget, variant and curvature, gradients, columns that only move, duplicates."""
    rng = np.random.default_rng([seed, 15])
    m, n = int(rng.integers(1, 4)), int(rng.integers(3, 10))
    kind = str(rng.choice(["per_row", "per_layer", "n_of_m", "columns", "groups", "pools", "units"]))
    if kind in ("n_of_m", "units"):
        n = 4 * int(rng.integers(1, 3))
    refit = bool(rng.random() < 0.6)
    W = rng.standard_normal((m, n)) * np.exp(rng.normal(0.0, 0.5, n))
    W[rng.random((m, n)) < 0.05] = 0.0
    X = rng.standard_normal((int(rng.integers(2 * n, 4 * n)), n)) @ _mixing(rng, n)
    if rng.random() < 0.05:  # inputs of one cause
        X = X[:, :1] @ rng.standard_normal((1, n))
    damping = float(10.0 ** rng.uniform(-4.0, -1.0) * np.mean(X**2))
    if rng.random() < 0.1:
        X[:, 1] = X[:, 0]
    G = 0.1 * rng.standard_normal((m, n)) * np.sqrt(np.mean(X**2, axis=0)) if rng.random() < 0.25 else None
    movable = [n - 1] if kind in ("per_row", "per_layer", "pools", "groups") and rng.random() < 0.2 else []
    H: object = X.T @ X / len(X) + damping * np.eye(n)
    if rng.random() < 0.15:
        H = FactorHessian(X, damping)
    elif m > 1 and rng.random() < 0.2:
        H = np.stack([np.asarray(H) * s for s in rng.uniform(0.5, 2.0, m)])
    return SubsetProblem(
        W, H, _budget(rng, kind, m, n - len(movable)), refit=refit, gradient=G, movable=movable
    )


def _mixing(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.eye(n) + float(rng.uniform(0.0, 1.0)) * rng.standard_normal((n, n))


def _budget(rng: np.random.Generator, kind: str, m: int, p: int) -> Budget:
    if kind == "per_row":
        return Budget.per_row(int(rng.integers(0, p + 1)))
    if kind == "per_layer":
        return Budget.per_layer(int(rng.integers(0, m * p + 1)))
    if kind == "n_of_m":
        return Budget.n_of_m(int(rng.integers(1, 4)), 4)
    if kind == "columns":
        return Budget.columns(int(rng.integers(0, p + 1)))
    if kind == "units":
        return Budget.columns(int(rng.integers(0, p // 2 + 1)), 2)
    sizes = [p // 2, p - p // 2]
    prune = [int(rng.integers(0, size + 1)) for size in sizes]
    if kind == "groups":
        return Budget.groups(sizes, prune)
    labels = rng.permutation(np.repeat([0, 1], sizes))
    return Budget.pools(labels, [size - gone for size, gone in zip(sizes, prune, strict=True)])


def consistent(first: int, count: int) -> dict[str, object]:
    """Put problems to every solver, and hold all that they say against each other and against brute force.

    No bound may lie above anybody's value, and what is called optimal not above the best value by more than
    the gap; each but for `CLAMP`, the rounding that statements may have.

    Args:
        first: seed of the first problem.
        count: how many.
    """
    solves: Counter[str] = Counter()
    proven: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(first, first + count):
        posed = problem(seed)
        found: dict[str, Solution] = {}
        for name, facts in available().items():
            if not facts["installed"] or (name in SLOW and seed % EVERY):
                continue
            solver = get_solver(name)
            try:
                check_support(solver, posed)
            except ValueError:
                refused[name] += 1
                continue
            start = time.perf_counter()
            try:
                found[name] = solve(
                    posed, solver, time_limit=BRIEF if name in SEARCHING else LIMIT, seed=seed
                )
            except Exception as error:
                wrong.append(f"seed {seed}: {name}: {type(error).__name__}: {' '.join(str(error).split())}")
                continue
            seconds[name] += time.perf_counter() - start
            solves[name] += 1
            proven[name] += found[name].status.value == "optimal"
        wrong += [f"seed {seed}: {line}" for line in contradictions(posed, found)]
    names = list(solves)
    return {
        "status": "consistent" if not wrong else "contradictions", "problems": count,
        "solves": sum(solves.values()),
        "contradictions": wrong,
        "solvers": [
            {"name": name, "solves": solves[name], "proven": proven[name], "refused": refused[name],
             "seconds": round(seconds[name], 3)}
            for name in names
        ],
    }  # fmt: skip


def contradictions(posed: SubsetProblem, found: dict[str, Solution], gap: float = 1e-4) -> list[str]:
    """Statements of solvers on one problem that can't all be true."""
    if not found:
        return []
    best = min(found, key=lambda name: found[name].value)
    least, lines = found[best].value, []
    allowed = CLAMP * (posed.scale + abs(least))
    for name, solution in found.items():
        value = posed.value(solution.mask)
        if value != solution.value:
            lines.append(f"{name} says {solution.value!r}, its mask costs {value!r}")
        if solution.bound > least + allowed:
            lines.append(f"the bound of {name}, {solution.bound!r}, is above the value of {best}, {least!r}")
        if (
            solution.status.value == "optimal"
            and solution.value > least + gap * abs(solution.value) + allowed
        ):
            lines.append(f"{name} calls {solution.value!r} optimal, {best} has {least!r}")
        if name == "brute-force" and solution.value > least + allowed:
            lines.append(f"brute force has {solution.value!r}, {best} has {least!r}")
    return lines


def held(first: int, count: int) -> dict[str, object]:
    """Hold claims about problems at the edge of what double precision can tell against rational arithmetic.

    See `tests/solvers/claims`: one solver a problem, curves, shared budgets and certificates, each against
    brute force in which nothing rounds.

    Args:
        first: seed of the first problem.
        count: how many.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.solvers.claims.held import Ledger, hold

    ledger = Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(first, first + count):
            hold(seed, ledger)
    wrong = [f"{kind}: {line}" for kind, lines in ledger.faults.items() for line in lines]
    return {
        "status": "consistent" if not wrong else "contradictions", "problems": count,
        "contradictions": wrong, "counts": dict(ledger.counts),
    }  # fmt: skip
