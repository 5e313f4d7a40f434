"""The selection objective item by item, kept up to date while items enter and leave the pruned set."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from solvers.form.blocks import blocks
from solvers.hessian import Array, FactorHessian
from solvers.problem import SubsetProblem

Items = NDArray[np.int64]

MANY = 1000
"""Columns that one product with the whole factor is quicker for than copies of them."""


class Impacts(ABC):
    """Items x of a selection problem with twice the objective `x' A x + 2 c' x`.

    An item is an entry of the weights, `A = diag(w) H diag(w)` within a row and zero between rows;
    or, when a budget couples the rows, a column, with the rows' matrices added up. `pull = A x + c`.

    Attributes:
        diagonal: `[items]` of A.
    """

    diagonal: Array

    @abstractmethod
    def reset(self, x: NDArray[np.bool_]) -> None:
        """Start from the pruned set `x [items]`."""

    @abstractmethod
    def pull(self, items: Items) -> Array:
        """`(A x + c)` at some items."""

    @abstractmethod
    def value(self) -> float:
        """The objective `1/2 x' A x + c' x` now."""

    @abstractmethod
    def entries(self, i: int, items: Items) -> Array:
        """`A_ij` for some items j other than i."""

    @abstractmethod
    def swap(self, i: int, j: int) -> None:
        """Item i leaves the pruned set, item j enters."""

    def all_pulls(self) -> Array:
        """`A x + c` at every item."""
        return self.pull(np.arange(len(self.diagonal)))


class DenseImpacts(Impacts):
    """Rows with dense matrices: a pull is looked up, a swap costs O(n)."""

    def __init__(self, problem: SubsetProblem) -> None:
        self.W, self.n = problem.W, problem.n
        self.blocks = [problem.hessian.dense(r) for r in range(problem.hessian.rows or 1)]
        self.linear = np.zeros(self.W.shape) if problem.G is None else -problem.G * self.W
        diagonal = problem.hessian.diagonal() * self.W**2
        self.diagonal = np.broadcast_to(diagonal, self.W.shape).ravel()
        self.pulls = self.linear.copy()
        self.x = np.zeros(self.W.size, dtype=bool)

    def reset(self, x: NDArray[np.bool_]) -> None:
        """See `Impacts.reset`."""
        self.x = x.copy()
        D = np.where(x.reshape(self.W.shape), self.W, 0.0)
        product = D @ self.blocks[0] if len(self.blocks) == 1 else np.einsum("rij,rj->ri", self.blocks, D)
        self.pulls = self.linear + self.W * product

    def pull(self, items: Items) -> Array:
        """See `Impacts.pull`."""
        return np.asarray(self.pulls.ravel()[items])

    def value(self) -> float:
        """See `Impacts.value`."""
        return 0.5 * float((self.pulls + self.linear).ravel()[self.x].sum())

    def entries(self, i: int, items: Items) -> Array:
        """See `Impacts.entries`."""
        r, column = divmod(i, self.n)
        rows, columns = np.divmod(items, self.n)
        return np.where(
            rows == r, self._row(r)[column, columns] * self.W[r, column] * self.W[r, columns], 0.0
        )

    def swap(self, i: int, j: int) -> None:
        """See `Impacts.swap`."""
        for item, sign in ((i, -1.0), (j, 1.0)):
            r, column = divmod(item, self.n)
            self.pulls[r] += sign * self.W[r, column] * self._row(r)[column] * self.W[r]
            self.x[item] = sign > 0

    def _row(self, r: int) -> Array:
        return self.blocks[r if len(self.blocks) > 1 else 0]


class FactorImpacts(Impacts):
    """Rows that share `H = X'X/N + damping I`, never formed: a pull is a product with a column of X."""

    def __init__(self, problem: SubsetProblem) -> None:
        hessian = problem.hessian
        assert isinstance(hessian, FactorHessian)
        self.W, self.n, self.damping = problem.W, problem.n, hessian.damping
        self.hessian, self.root = hessian, np.sqrt(hessian.N)
        self.columns = np.ascontiguousarray(hessian.X.T)
        self.linear = (np.zeros(self.W.shape) if problem.G is None else -problem.G * self.W).ravel()
        self.diagonal = (hessian.diagonal() * self.W**2).ravel()
        self.x = np.zeros(self.W.size, dtype=bool)
        self.sums = np.zeros((problem.m, hessian.N))

    def reset(self, x: NDArray[np.bool_]) -> None:
        """See `Impacts.reset`."""
        self.x = x.copy()
        self.sums = self.hessian.image(np.where(x.reshape(self.W.shape), self.W, 0.0))

    def pull(self, items: Items) -> Array:
        """See `Impacts.pull`."""
        rows, columns = np.divmod(items, self.n)
        products = np.einsum("is,is->i", self._columns(columns), self.sums[rows])
        return self._pulls(items, products)

    def value(self) -> float:
        """See `Impacts.value`."""
        separable = (0.5 * self.damping * self.W.ravel() ** 2 + self.linear)[self.x]
        return 0.5 * float((self.sums**2).sum()) + float(separable.sum())

    def all_pulls(self) -> Array:
        """See `Impacts.all_pulls`."""
        return self._pulls(np.arange(self.W.size), self.hessian.pull_back(self.sums).ravel())

    def _pulls(self, items: Items, products: Array) -> Array:
        w = self.W.ravel()[items]
        return np.asarray(w * products + self.damping * w * w * self.x[items] + self.linear[items])

    def entries(self, i: int, items: Items) -> Array:
        """See `Impacts.entries`."""
        r, column = divmod(i, self.n)
        rows, columns = np.divmod(items, self.n)
        w = self.W[r, column]
        own = self._columns(np.array([column]))
        if len(items) < MANY:
            products = self._columns(columns) @ own[0]
        else:
            products = self.hessian.pull_back(own)[0, columns]
        return np.where(rows == r, w * self.W[r, columns] * products, 0.0)

    def swap(self, i: int, j: int) -> None:
        """See `Impacts.swap`."""
        for item, sign in ((i, -1.0), (j, 1.0)):
            r, column = divmod(item, self.n)
            self.sums[r] += sign * self.W[r, column] * self._columns(np.array([column]))[0]
            self.x[item] = sign > 0

    def _columns(self, columns: Items) -> Array:
        return np.asarray(self.columns[columns] / self.root, dtype=np.float64)


def impacts(problem: SubsetProblem) -> Impacts:
    """The impacts of a selection problem, in the form that suits its curvature."""
    hessian = problem.hessian
    if problem.pools.coupled:
        return DenseImpacts(_merged(problem))
    if isinstance(hessian, FactorHessian) and hessian.n > hessian.N:
        return FactorImpacts(problem)
    return DenseImpacts(problem)


def _merged(problem: SubsetProblem) -> SubsetProblem:
    """One row of unit weights whose entries are the problem's columns."""
    (block,) = blocks(problem)
    gradient = None if problem.G is None else block.B[0].T
    return SubsetProblem(np.ones((1, problem.n)), block.H[0], problem.budget, refit=False, gradient=gradient)
