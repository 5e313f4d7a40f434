"""Certificates of whole problems, alone or together, and their files."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import allocation_value
from solvers.blocks import Block, blocks
from solvers.bounds.curves import KNOTS, WIDE_KNOTS
from solvers.bounds.split import WIDE, split_blocks
from solvers.budget import Budget
from solvers.certificate.claims import Terms, root_curve, root_proof
from solvers.certificate.original import as_it_is, restate, stored
from solvers.certificate.proof import Proof
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.reduction import reduce

FORMAT = "cbs certificate 1"


@dataclass(frozen=True)
class Part:
    """What a certificate says of one problem.

    Attributes:
        digest: of the problem's numbers.
        mask: `[m, n]`, True where pruned.
        value: of the mask.
        kind: of the budget.
        total: what a `per_layer` budget prunes, else 0.
        proofs: about the problem's rows of decisions, in the stored numbers.
        curves: bounds of every row for every count, where rows share the budget.
    """

    digest: str
    mask: Mask
    value: float
    kind: str
    total: int
    proofs: tuple[Proof, ...]
    curves: tuple[Array, ...] = ()

    @property
    def bound(self) -> float:
        """What the proofs show of the problem's own budget."""
        if self.kind == "per_layer":
            return allocation_value(list(self.curves), self.total)
        best: dict[int, float] = {}
        for proof in self.proofs:
            row = int(proof.rows[0])
            best[row] = max(proof.bound, best.get(row, -np.inf))
        return _sum(list(best.values()))


@dataclass(frozen=True)
class Certificate:
    """Masks, and proofs that no others of the budget cost less than a bound.

    Attributes:
        parts: a problem each.
        shared: whether the problems share one budget, the sum of their own `per_layer` budgets.
    """

    parts: tuple[Part, ...]
    shared: bool = False

    @property
    def value(self) -> float:
        """Cost of all masks together."""
        return sum(part.value for part in self.parts)

    @property
    def bound(self) -> float:
        """Lower bound on the cost of any masks of the budget."""
        if not self.shared:
            return _sum([part.bound for part in self.parts])
        curves = [curve for part in self.parts for curve in part.curves]
        return allocation_value(curves, sum(part.total for part in self.parts))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate file that `cbs verify` reads, whole or not at all.

        Raises:
            OSError: if the folder can't be written.
        """
        path = Path(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, **self._fields())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def _fields(self) -> dict[str, NDArray[np.generic]]:
        proofs = [(i, proof) for i, part in enumerate(self.parts) for proof in part.proofs]
        layers = [part.kind == "per_layer" for part in self.parts]

        def joined(name: str, dtype: type) -> NDArray[np.generic]:
            arrays = [np.asarray(getattr(proof, name)).ravel() for _, proof in proofs]
            return np.concatenate([*arrays, np.zeros(0, dtype)])

        return {
            "format": np.array(FORMAT),
            "shared": np.array(self.shared),
            "digest": np.array([part.digest for part in self.parts]),
            "mask": np.concatenate([part.mask.ravel() for part in self.parts]),
            "value": np.array([part.value for part in self.parts]),
            "bound": np.array(self.bound),
            "problem": np.array([i for i, _ in proofs], np.int64),
            "row": np.array([proof.rows[0] for _, proof in proofs], np.int64),
            "prune": np.array(
                [proof.splits.shape[2] - int(proof.keep[0]) if layers[i] else -1 for i, proof in proofs], np.int64
            ),
            "nodes": np.array([len(proof.entry) for _, proof in proofs], np.int64),
            "vectors": np.array([len(proof.u) for _, proof in proofs], np.int64),
            "splits": np.array([len(proof.splits) for _, proof in proofs], np.int64),
            "d": joined("d", np.float64),
            "root": joined("roots", np.int8),
            "entry": joined("entry", np.int32),
            "pruned": joined("pruned", np.int32),
            "kept": joined("kept", np.int32),
            "vector": joined("vector", np.int32),
            "split": joined("owner", np.int32),
            "u": joined("u", np.float32),
            "claim": joined("claim", np.float64),
        }


def certify(
    problem: SubsetProblem,
    mask: Mask,
    proofs: Sequence[Proof] = (),
    *,
    shared: bool = False,
    device: str = "cpu",
) -> Certificate:
    """A certificate of a mask, from what a search proved, and from root relaxations of all other rows.

    Args:
        problem: what was asked.
        mask: the best mask found.
        proofs: about the blocks of the reduced problem (`solvers.reduction.reduce`); where rows share a
            budget, about a row and a count each, in any number.
        shared: the mask's count need not be that of the problem's `per_layer` budget, which it will share
            with other problems (`together`).
        device: torch device of the relaxations.

    Raises:
        ValueError: if the mask misses the budget, or the curvature is too close to singular for a
            certified split.
    """
    proofs = [*proofs, *_missing(reduce(problem).problem, proofs, device)]
    layer = problem.budget.kind == "per_layer"
    curves: list[Array] = []
    if as_it_is(problem):
        terms = None
        if layer:
            found = blocks(problem, np.zeros(problem.m, np.int64))
            terms = [Terms.of(found[int(proof.rows[0])]) for proof in proofs]
    else:
        restated = restate(problem, proofs)
        proofs, terms = [proof for proof, _ in restated], [these for _, these in restated]
    if layer:
        assert terms is not None
        curves = _curves(problem, proofs, terms)
    total = int(problem.pools.prune[0]) if layer else 0
    counted = _recounted(problem, int(mask.sum())) if shared else problem
    part = Part(
        stored(problem).digest, counted.check(mask), counted.value(mask), problem.budget.kind, total,
        tuple(proofs), tuple(curves),
    )  # fmt: skip
    return Certificate((part,))


def together(certificates: Sequence[Certificate], *, shared: bool = False) -> Certificate:
    """One certificate of several problems, whose values and bounds add.

    Args:
        certificates: of the problems, in the order in which their files will be given to the checker.
        shared: whether their `per_layer` budgets are one budget, met only by all masks together.

    Raises:
        ValueError: if problems with other budgets are to share.
    """
    parts = tuple(part for certificate in certificates for part in certificate.parts)
    wrong = [part.kind for part in parts if part.kind != "per_layer"]
    if shared and wrong:
        raise ValueError(f"only per_layer budgets can be shared, got {wrong[0]!r}")
    return Certificate(parts, shared)


def _recounted(problem: SubsetProblem, prune: int) -> SubsetProblem:
    return SubsetProblem(
        problem.W, problem.hessian, Budget.per_layer(prune),
        refit=problem.refit, gradient=problem.G, movable=problem.movable,
    )  # fmt: skip


def _missing(problem: SubsetProblem, proofs: Sequence[Proof], device: str) -> list[Proof]:
    """Root proofs of rows that have none; at several counts, where rows share a budget."""
    if problem.budget.kind != "per_layer":
        known = {int(proof.rows[0]) for proof in proofs}
        return _roots([block for block in blocks(problem) if int(block.rows[0]) not in known], device)
    known = {int(proof.rows[0]) for proof in proofs if len(proof.entry) == 1}
    n = problem.n
    knots = KNOTS if n <= WIDE else WIDE_KNOTS
    counts = sorted({0, n, *(min(max(round(share * n), 0), n) for share in knots)})
    found: list[Proof] = []
    for k in counts:
        these = blocks(problem, np.full(problem.m, k))
        found += _roots([block for block in these if int(block.rows[0]) not in known], device)
    return found


def _roots(found: list[Block], device: str) -> list[Proof]:
    if not found:
        return []
    return [root_proof(b, s) for b, s in zip(found, split_blocks(found, device=device), strict=True)]


def _curves(problem: SubsetProblem, proofs: Sequence[Proof], terms: Sequence[Terms]) -> list[Array]:
    """Every row's bound at every count: of trees at their own, of roots at all; joint costs never fall."""
    n = len(problem.prunable)
    curves = [np.full(n + 1, -np.inf) for _ in range(problem.m)]
    for proof, these in zip(proofs, terms, strict=True):
        curve, k = curves[int(proof.rows[0])], n - int(proof.keep[0])
        np.maximum(curve, these.floor, out=curve)
        curve[k] = max(curve[k], proof.bound)
        if len(proof.entry) == 1:
            np.maximum(curve, root_curve(these, proof), out=curve)
        if problem.refit:
            np.maximum.accumulate(curve, out=curve)
    return curves


def _sum(parts: Sequence[float]) -> float:
    """The largest float that is at most the exact sum."""
    total = math.fsum(parts)
    if math.isfinite(total) and Fraction(total) > sum(map(Fraction, parts)):
        return float(np.nextafter(total, -np.inf))
    return total
