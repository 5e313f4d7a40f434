"""Rows of one curvature as tensors, so that a step of all their relaxations is one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.form.blocks import Block
from solvers.problem import SubsetProblem
from solvers.runtime.tensors import Tensor, torch


@dataclass(frozen=True)
class SharedRows:
    """Rows `W [m, n]` that share `H [n, n]`, under any budget whose pools are runs of equal length.

    Attributes:
        refit: joint, or selection.
        H: `[n, n]`.
        W: `[m, n]`.
        C: `[m, n]` linear terms `g o w` of a selection problem, or None.
        size: entries of a pool: n, those of a group, or m n. Pools follow each other row by row.
        keep: `[P]` entries that each pool keeps.
        price: of keeping an entry, positive, or None. At a price a joint row may keep as many as it likes
            (keep counts for nothing), and bounds are on its cost and what it pays.
    """

    refit: bool
    H: Tensor
    W: Tensor
    C: Tensor | None
    size: int
    keep: NDArray[np.int64]
    price: float | None = None

    @classmethod
    def of(cls, problem: SubsetProblem, device: str = "cpu") -> SharedRows:
        """The rows of a reduced problem with a shared curvature, in double precision.

        Raises:
            ValueError: if rows have curvatures of their own, or share one mask.
        """
        if not shareable(problem):
            raise ValueError("rows must share one curvature, and no mask")
        C = None if problem.G is None else _tensor(problem.G * problem.W, device)
        H, W = _tensor(problem.hessian.dense(0), device), _tensor(problem.W, device)
        return cls(problem.refit, H, W, C, int(problem.pools.sizes[0]), problem.pools.keep)

    @classmethod
    def stacked(cls, found: Sequence[Block], device: str = "cpu") -> SharedRows:
        """Joint blocks as rows; they must be `alike`."""
        W = np.stack([block.W[0, :, 0] for block in found])
        keep = np.concatenate([block.keep for block in found])
        size = found[0].n // len(found[0].keep)
        return cls(True, _tensor(found[0].H[0], device), _tensor(W, device), None, size, keep)

    def priced(self, price: float) -> SharedRows:
        """The rows of one pool on their own, at a price (Lagrange's) of keeping an entry."""
        m, n = self.W.shape
        return replace(self, size=n, keep=np.full(m, n), price=price)

    @property
    def taken(self) -> NDArray[np.int64]:
        """`[P]` entries whose indicators sum up: those kept (joint), or pruned (selection)."""
        return self.keep if self.refit else self.size - self.keep

    @property
    def whole(self) -> bool:
        """Whether one pool holds all rows."""
        return self.size > self.W.shape[1]

    def pooled(self, A: Tensor) -> Tensor:
        """`[m, n]` as `[P, size]`."""
        return A.reshape(-1, self.size)

    def some(self, index: NDArray[np.int64]) -> SharedRows:
        """Some of the rows; a pool of the whole layer keeps its share of them."""
        m, n = self.W.shape
        if self.whole:
            keep = np.array([round(int(self.keep[0]) * len(index) / m)])
            size = n * len(index)
        else:
            keep, size = self.keep.reshape(m, -1)[index].ravel(), self.size
        C = None if self.C is None else self.C[index]
        return replace(self, W=self.W[index], C=C, size=size, keep=keep)


def alike(found: Sequence[Block]) -> bool:
    """Whether blocks are lone joint rows of one curvature, with as many pools, all of one size."""
    first = found[0]
    labels = np.arange(first.n) * len(first.keep) // first.n
    return first.n % len(first.keep) == 0 and all(
        b.refit
        and b.B.shape == (1, first.n, 1)
        and b.shared is not None
        and b.shared is first.shared
        and np.array_equal(b.labels, labels)
        for b in found
    )


def shareable(problem: SubsetProblem) -> bool:
    """Whether a reduced problem's rows have masks of their own, and one curvature that may be formed."""
    return problem.hessian.shared and not problem.pools.coupled and not problem.hessian.implicit


def _tensor(A: NDArray[np.float64], device: str) -> Tensor:
    return torch.tensor(A, dtype=torch.float64, device=device)
