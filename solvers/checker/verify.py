"""The verdict on a certificate."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from solvers.checker.allocation import least_total
from solvers.checker.claims import Certificate, parse_certificate, read_digests
from solvers.checker.image import image_values
from solvers.checker.problem import Problem, read_problem
from solvers.checker.proofs import Prover, Refuted
from solvers.checker.rounding import Array
from solvers.checker.values import budget_violation, row_values

AGREEMENT = 1e-9
"""How far a stored value may be from the proven one, relative to the terms that it sums."""


@dataclass(frozen=True)
class Verdict:
    """What a certificate proves.

    Attributes:
        low: the mask costs at least this.
        high: the mask costs at most this.
        bound: no mask of the budget costs less.
        leaves: leaves evaluated.
        vectors: points evaluated.
        proofs: proofs checked.
        seconds: wall time.
        curves: of every problem with a `per_layer` budget, else None, as where the bound is in an image:
            `[m, n + 1]` what no mask with k entries of a row pruned costs less than.
    """

    low: float
    high: float
    bound: float
    leaves: int
    vectors: int
    proofs: int
    seconds: float
    curves: tuple[Array | None, ...] = field(default=(), repr=False, compare=False)

    @property
    def gap(self) -> float:
        """`(high - bound) / |high|`, 0 if they are equal: at least the mask's distance from the optimum."""
        if self.high == self.bound:
            return 0.0
        return (self.high - self.bound) / abs(self.high) if self.high else np.inf


def verify(certificate: str | os.PathLike[str], *files: str | os.PathLike[str]) -> Verdict:
    """Check a certificate against the instance files that it is about, in the order of its writing.

    Every statement is verified for the float64 numbers in the files: that they are the problems certified;
    that the masks meet the budget and cost what is claimed; that every split leaves a positive semidefinite
    remainder; that every tree covers all masks; that every leaf's bound holds; and that the bound on the sum
    of all problems follows.

    Raises:
        Refuted: in one line, what is not proven.
        ValueError: in one line, which file can't be read.
    """
    start = time.perf_counter()
    archive, digests = read_digests(certificate)
    problems = [read_problem(path) for path in files]
    if len(files) != len(digests):
        raise Refuted(f"the certificate is about {len(digests)} problems, {len(files)} files were given")
    for path, problem, digest in zip(files, problems, digests, strict=True):
        if problem.digest != digest:
            raise Refuted(
                f"{os.fspath(path)!r} is not the problem certified: its digest is {problem.digest[:12]}..., "
                f"not {digest[:12]}..."
            )
    claimed = parse_certificate(archive, problems)
    with np.errstate(all="ignore"):
        _check_masks(claimed, problems)
        try:
            prover = Prover(problems, claimed.images)
        except ArithmeticError as error:
            raise Refuted(str(error)) from None
        for proof in claimed.proofs:
            prover.check(proof)
        for image in claimed.images:
            prover.check_image(image)
        bound = shown_bound(problems, prover, shared=claimed.shared)
        low, high = _values(claimed, problems, prover)
    if not np.isfinite(claimed.bound) or Fraction(claimed.bound) > bound:
        raise Refuted(f"the bound claimed is {claimed.bound!r}, the proofs show {float(bound)!r}")
    return Verdict(
        low, high, claimed.bound, prover.leaves, prover.vectors, len(claimed.proofs) + len(claimed.images),
        time.perf_counter() - start,
        tuple(
            np.stack(prover.curves(i)) if problem.kind == "per_layer" and i not in prover.images else None
            for i, problem in enumerate(problems)
        ),
    )  # fmt: skip


def _check_masks(claimed: Certificate, problems: Sequence[Problem]) -> None:
    if claimed.shared:
        if any(problem.kind != "per_layer" for problem in problems):
            raise Refuted("only budgets per_layer can be shared by problems")
        got, want = sum(int(mask.sum()) for mask in claimed.mask), _total(problems)
        if got != want:
            raise Refuted(f"the masks prune {got} weights together, not {want}")
    for i, (problem, mask) in enumerate(zip(problems, claimed.mask, strict=True)):
        if wrong := budget_violation(problem, mask, counted=not claimed.shared):
            raise Refuted(f"the mask of problem {i} {wrong}")


def _total(problems: Sequence[Problem]) -> int:
    return sum(int(problem.counts[0]) for problem in problems)


def shown_bound(problems: Sequence[Problem], prover: Prover, *, shared: bool = False) -> Fraction:
    """The bound that the proofs checked imply: sums over rows, programmes over rows that share a budget.

    Raises:
        Refuted: if they imply none.
    """
    parts: list[float] = []
    if shared and prover.images:
        raise Refuted("a bound in an image is about one problem; problems that share a budget need curves")
    for i, problem in enumerate(problems):
        if i in prover.images:
            parts.append(prover.images[i])
        elif problem.kind != "per_layer":
            parts += [prover.row_bound(i, row) for row in range(1 if problem.shared else problem.m)]
        elif not shared:
            parts.append(least_total(prover.curves(i), int(problem.counts[0])))
    if shared:
        curves: list[Array] = [curve for i in range(len(problems)) for curve in prover.curves(i)]
        parts.append(least_total(curves, _total(problems)))
    for part in parts:
        if not np.isfinite(part):
            raise Refuted(f"the proofs show no finite bound, but {part!r}")
    return sum((Fraction(part) for part in parts), Fraction(0))


def shown_value(
    problem: Problem, mask: NDArray[np.bool_], prover: Prover, i: int = 0
) -> tuple[Fraction, Fraction, float]:
    """Ends of the interval that holds what a mask costs, and the size of the terms that it sums.

    Args:
        problem: the problem.
        mask: `[m, n]`, True where pruned.
        prover: which has checked proofs about all its rows.
        i: the problem's index there.

    Raises:
        Refuted: if there is no finite interval.
    """
    if i in prover.images:
        lows, highs, size = image_values(problem, mask)
    else:
        lows, highs, size = row_values(problem, prover.reduced[i], mask, prover.splits(i))
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        raise Refuted(f"the value of the mask of problem {i} can't be enclosed")
    low, high = (sum((Fraction(x) for x in ends.tolist()), Fraction(0)) for ends in (lows, highs))
    return low, high, float(size.sum())


def _values(claimed: Certificate, problems: Sequence[Problem], prover: Prover) -> tuple[float, float]:
    """Ends of the interval that holds the sum of all values, each checked against what is claimed."""
    total_low = total_high = Fraction(0)
    for i, (problem, mask) in enumerate(zip(problems, claimed.mask, strict=True)):
        low, high, size = shown_value(problem, mask, prover, i)
        stored = float(claimed.value[i])
        slack = AGREEMENT * size
        if not float(low) - slack <= stored <= float(high) + slack:
            raise Refuted(
                f"the value claimed of problem {i} is {stored!r}, "
                f"but it lies between {float(low)!r} and {float(high)!r}"
            )
        total_low, total_high = total_low + low, total_high + high
    if claimed.bound > total_high:
        raise Refuted(f"the bound claimed, {claimed.bound!r}, lies above the value {float(total_high)!r}")
    return float(np.nextafter(float(total_low), -np.inf)), float(np.nextafter(float(total_high), np.inf))
