"""Every statement that solvers make about a problem, held against the exact one.

Comparisons are of rationals: the float that was told against the optimum that is. What a certificate is
verified to prove gets no allowance.
"""

import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np

from solvers import Status, checker, curve, solve, solve_together
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.instances import save
from tests.solvers.claims.problems import random_problem
from tests.solvers.claims.rational import Exact, fraction, rational, shared_optimum

DIGITS = 1e-6
"""Largest relative error of a value: the seventh digit is the last that is printed."""
NOTHING = 1e-26
"""Of a problem's scale, what a mask may cost more than at best: its value is what its weights cost, and these
are rounded to doubles, for about eps^2 times the condition."""
ROUNDING = 1e-12
"""How far a told bound may lie above the optimum, relative to it: a value's rounding where the two meet."""

SOLVERS = {
    "auto": "auto",
    "compiled": BranchAndBound(engine="compiled"),
    "batched": BranchAndBound(engine="batched"),
    "relaxation": "relaxation",
    "brute-force": "brute-force",
}


class Ledger:
    """What was tried and what was wrong, by kind.

    Attributes:
        counts: how often every kind of statement was made.
        faults: for every kind of fault the lines that describe them.
    """

    KINDS = ("bounds above", "told bounds above", "told values below", "values off", "false proofs",
             "certificates refused", "errors")  # fmt: skip

    def __init__(self):
        self.counts = Counter()
        self.faults = {kind: [] for kind in self.KINDS}

    def hold(self, kind, true, words):
        """Count a statement of a kind, and keep the words if it is not true."""
        self.counts[kind] += 1
        if not true:
            self.faults[kind].append(words)

    @property
    def lines(self):
        """Every fault, a line each."""
        return [f"{kind}: {words}" for kind, found in self.faults.items() for words in found]


def hold(seed, ledger):
    """Make one problem, ask for one or two statements about it, and hold them against the exact ones."""
    rng = np.random.default_rng([seed, 11])
    kind = "per_layer" if rng.random() < 0.35 else None
    try:
        problem = random_problem(seed, kind)
    except ValueError as error:
        ledger.counts["refused"] += 1
        ledger.hold("errors", "\n" not in str(error), f"seed {seed}: {error}")
        return
    ledger.counts["problems"] += 1
    exact = Exact(problem)
    asked = [("solve", str(rng.choice(list(SOLVERS))))]
    if problem.budget.kind in ("per_row", "per_layer") and rng.random() < 0.5:
        asked.append(("curve", ""))
    if problem.budget.kind == "per_layer" and rng.random() < 0.5:
        asked.append(("together", ""))
    certify = bool(rng.random() < 0.5)
    for what, name in asked:
        where = f"seed {seed}, {what} {name}".rstrip() + (", certified" if certify else "")
        try:
            if what == "solve":
                _hold_solution(problem, exact, name, certify, where, ledger)
            elif what == "curve":
                _hold_curve(problem, exact, certify and problem.budget.kind == "per_layer", where, ledger)
            else:
                _hold_together(problem, exact, certify, seed, where, ledger)
        except ValueError as error:  # no split, or no proof, of a curvature this close to singular
            ledger.counts["no split"] += 1
            fine = "singular" in str(error) and "\n" not in str(error)
            ledger.hold("errors", fine, f"{where}: {error}")
        except Exception as error:
            ledger.hold("errors", False, f"{where}: {type(error).__name__}: {error}")


def _hold_solution(problem, exact, name, certify, where, ledger):
    told = []
    gap = 1e-4
    solution = solve(
        problem, SOLVERS[name], gap=gap, certify=certify, callback=lambda p: told.append(p.bounds) and False
    )
    optimum = fraction(exact.optimum)
    _hold_bound(solution.bound, optimum, "bounds above", where, ledger)
    _hold_told(told, optimum, where, ledger)
    value = fraction(exact.value(solution.mask))
    _hold_value(solution.value, value, problem.scale, where, ledger)
    if solution.status is Status.OPTIMAL:
        fine = value - optimum <= Fraction(gap + DIGITS) * abs(value)
        ledger.hold("false proofs", fine, f"{where}: {float(value)!r} for {float(optimum)!r}")
    if certify:
        _hold_certificate(solution.certificate, solution.stats, [problem], optimum, where, ledger)


def _hold_curve(problem, exact, certify, where, ledger):
    told = []
    found = curve(problem, certify=certify, callback=lambda p: told.append(p.bounds) and False)
    total = sum(fraction(cost) for best in exact.curves for cost in best)
    _hold_told(told, total, where, ledger)
    for k in range(len(exact.columns) + 1):
        mask = found.masks(k)
        for r in range(problem.m):
            at = f"{where}, row {r}, {k} pruned"
            least, value = fraction(exact.curves[r][k]), fraction(exact.row_value(r, mask[r]))
            _hold_bound(float(found.lower[r, k]), least, "bounds above", at, ledger)
            _hold_value(float(found.values[r, k]), value, problem.scale, at, ledger)
            if found.proven[r, k]:
                fine = value - least <= Fraction(found.gap + DIGITS) * abs(value)
                ledger.hold("false proofs", fine, f"{at}: {float(value)!r} for {float(least)!r}")
    if certify:
        optimum = fraction(exact.optimum)
        _hold_certificate(found.certificate, found.stats, [problem], optimum, where, ledger)


def _hold_together(problem, exact, certify, seed, where, ledger):
    """The problem and another one under the sum of their budgets."""
    other, extra = None, 0
    while other is None:
        extra += 1
        try:
            other = random_problem([seed, extra], "per_layer")
        except ValueError:
            pass
    both, told = [problem, other], []
    parts = [exact, Exact(other)]
    found = solve_together(both, certify=certify, callback=lambda p: told.append(p.bounds) and False)
    total = sum(int(p.pools.prune[0]) for p in both)
    optimum = fraction(shared_optimum([best for part in parts for best in part.curves], total))
    _hold_bound(found.bound, optimum, "bounds above", where, ledger)
    _hold_told(told, optimum, where, ledger)
    values = [fraction(part.value(mask)) for part, mask in zip(parts, found.masks, strict=True)]
    for told_value, value, part in zip(found.values, values, both, strict=True):
        _hold_value(told_value, value, part.scale, where, ledger)
    if found.status is Status.OPTIMAL:
        value = sum(values)
        fine = value - optimum <= Fraction(1e-4 + DIGITS) * abs(value)
        ledger.hold("false proofs", fine, f"{where}: {float(value)!r} for {float(optimum)!r}")
    if certify:
        _hold_certificate(found.certificate, found.stats, both, optimum, where, ledger)


def _hold_bound(bound, optimum, kind, where, ledger, allowance=ROUNDING):
    fine = bound == -np.inf or (np.isfinite(bound) and bound <= optimum + Fraction(allowance) * abs(optimum))
    ledger.hold(kind, fine, f"{where}: bound {bound!r} above {float(optimum)!r}")


def _hold_told(told, optimum, where, ledger):
    for bounds in told:
        _hold_bound(bounds.lower, optimum, "told bounds above", where, ledger)
        fine = bounds.upper == np.inf or bounds.upper >= optimum - Fraction(DIGITS) * abs(optimum)
        ledger.hold("told values below", fine, f"{where}: {bounds.upper!r} below {float(optimum)!r}")


def _hold_value(told, value, scale, where, ledger):
    allowed = Fraction(DIGITS) * abs(value) + Fraction(NOTHING) * Fraction(scale)
    fine = abs(fraction(rational(told)) - value) <= allowed
    ledger.hold("values off", fine, f"{where}: {told!r} for {float(value)!r}")


def _hold_certificate(certificate, stats, problems, optimum, where, ledger):
    if certificate is None:
        ledger.counts["no certificate"] += 1
        ledger.hold("errors", bool(stats["certificate"]), f"{where}: no word about its certificate")
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.npz" for i in range(len(problems))]
        for file, problem in zip(files, problems, strict=True):
            save(file, problem)
        certificate.save(Path(folder) / "proof")
        try:
            verdict = checker.verify(Path(folder) / "proof", *files)
        except Exception as error:
            ledger.hold("certificates refused", False, f"{where}: {type(error).__name__}: {error}")
            return
    ledger.hold("certificates refused", True, "")
    _hold_bound(verdict.bound, optimum, "bounds above", f"{where}, verified", ledger, 0)
