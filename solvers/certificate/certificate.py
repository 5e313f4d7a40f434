"""Certificates of whole problems, alone or together, and their files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import EXACT_WORK, allocation_value, allocation_work
from solvers.certificate.original import ImageProof
from solvers.certificate.proof import DIAGONAL, MARGIN, Proof
from solvers.checker.allocation import least_total
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.runtime.writing import replacing
from solvers.summary import number

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
        curves: what they show of every row for every count, where rows share the budget.
        scale: size of the terms that these are sums of.
        image: the proof in the image of a factor that is never formed, in place of all others.
    """

    digest: str
    mask: Mask
    value: float
    kind: str
    total: int
    proofs: tuple[Proof, ...]
    curves: tuple[Array, ...] = ()
    scale: float = 0.0
    image: ImageProof | None = None

    @cached_property
    def bound(self) -> float:
        """What the proofs show of the problem's own budget."""
        if self.image is not None:
            return self.image.claim
        if self.kind == "per_layer":
            return _shared(self.curves, self.total, self.scale)
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

    def __repr__(self) -> str:
        proofs = sum(len(part.proofs) + (part.image is not None) for part in self.parts)
        return f"Certificate({len(self.parts)} problems, {proofs} proofs, bound {number(self.bound)})"

    @property
    def value(self) -> float:
        """Cost of all masks together."""
        return sum(part.value for part in self.parts)

    @cached_property
    def bound(self) -> float:
        """Lower bound on the cost of any masks of the budget."""
        if not self.shared:
            return _sum([part.bound for part in self.parts])
        curves = [curve for part in self.parts for curve in part.curves]
        total = sum(part.total for part in self.parts)
        return _shared(curves, total, sum(part.scale for part in self.parts))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate file that `cbs verify` reads, whole or not at all.

        Raises:
            OSError: if the folder can't be written.
        """
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **self._fields())

    def _fields(self) -> dict[str, NDArray[np.generic]]:
        proofs = [(i, proof) for i, part in enumerate(self.parts) for proof in part.proofs]
        layers = [part.kind == "per_layer" for part in self.parts]

        def joined(name: str, dtype: type, of: Sequence[object]) -> NDArray[np.generic]:
            arrays = [np.asarray(getattr(each, name)).ravel() for each in of]
            return np.concatenate([*arrays, np.zeros(0, dtype)])

        images = [(i, part.image) for i, part in enumerate(self.parts) if part.image is not None]
        aside: dict[str, NDArray[np.generic]] = {}
        if images:
            aside = {
                "image_problem": np.array([i for i, _ in images], np.int64),
                "image": np.concatenate([image.v.ravel() for _, image in images]),
                "image_claim": np.array([image.claim for _, image in images]),
            }
        alone = [proof for _, proof in proofs]
        beside = [proof.blocks or DIAGONAL for proof in alone]
        pair = joined("pair", np.uint8, beside)
        if any(each.place is not None for each in beside):
            counts = [each.counts(len(proof.splits)) for each, proof in zip(beside, alone, strict=True)]
            aside["crossing"] = np.concatenate(counts).astype(np.int32)
        return {
            "format": np.array(FORMAT),
            "shared": np.array(self.shared),
            "digest": np.array([part.digest for part in self.parts]),
            "mask": np.concatenate([part.mask.ravel() for part in self.parts]),
            "value": np.array([part.value for part in self.parts]),
            "bound": np.array(self.bound),
            "problem": np.array([i for i, _ in proofs], np.int64),
            "row": np.array([proof.rows[0] for _, proof in proofs], np.int64),
            "prune": np.array([proof.prune if layers[i] else -1 for i, proof in proofs], np.int64),
            "nodes": np.array([len(proof.entry) for _, proof in proofs], np.int64),
            "vectors": np.array([len(proof.u) for _, proof in proofs], np.int64),
            "splits": np.array([len(proof.splits) for _, proof in proofs], np.int64),
            "d": joined("d", np.float32, alone),
            "root": joined("roots", np.int8, alone),
            "entry": joined("entry", np.int32, alone),
            "pruned": joined("pruned", np.int32, alone),
            "kept": joined("kept", np.int32, alone),
            "vector": joined("vector", np.int32, alone),
            "split": joined("owner", np.int32, alone),
            "u": joined("u", np.float32, alone),
            "claim": joined("claim", np.float64, alone),
            "pairs": np.array([len(each.pair) for each in beside], np.int64),
            "pair": pair,
            "cross": joined("cross", np.float32, beside),
            "price": joined("price", np.float32, beside),
            **aside,
        }


def _shared(curves: Sequence[Array], total: int, scale: float) -> float:
    """What rows that share a budget cost at least, less a margin for other machines' rounding.

    Up to `EXACT_WORK` by the checker's own programme; beyond it by a weaker bound that takes less time.
    """
    small = allocation_work(curves, total) <= EXACT_WORK
    low = least_total(curves, total) if small else allocation_value(curves, total)
    floor = 0.0 if all((curve >= 0.0).all() for curve in curves) else -math.inf
    return max(low - MARGIN * (scale + abs(low)), floor)


def _sum(parts: Sequence[float]) -> float:
    """The largest float that is at most the exact sum."""
    total = math.fsum(parts)
    if math.isfinite(total) and Fraction(total) > sum(map(Fraction, parts)):
        return float(np.nextafter(total, -np.inf))
    return total
