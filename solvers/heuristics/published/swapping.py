"""Greedy swapping local search: Algorithm 1 of the Combinatorial Brain Surgeon."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.control import Control
from solvers.form.blocks import blocks
from solvers.hessian import Array, FactorHessian
from solvers.heuristics.published.randomized_magnitude import RandomizedMagnitude, Score
from solvers.problem import SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

Items = NDArray[np.int64]

MANY = 1000
"""Columns that one product with the whole factor is quicker for than copies of them."""
KEPT_BYTES = 1 << 28
"""What copies of a factor's columns may take, which are kept for the steps after."""


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
        self.known: dict[int, Array] = {}
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
        """Columns of `X / sqrt(N)`, a row each. Few are ever looked at, and these again and again."""
        wanted = columns.tolist()
        missing = [column for column in wanted if column not in self.known]
        if missing:
            if 8 * self.hessian.N * (len(self.known) + len(missing)) > KEPT_BYTES:
                self.known.clear()
                missing = wanted
            found = self.hessian.columns(np.array(missing)).T / self.root
            self.known.update(zip(missing, found, strict=True))
        return np.array([self.known[column] for column in wanted])


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


@dataclass(frozen=True)
class Swapping(Solver):
    """Yu et al. 2022, Algorithm 1, from randomized magnitude pruning or a warm start.

    A step swaps many pairs at once. The best mask over all steps is kept by `score`, in the paper
    the true loss on a sample of training data, not by the quadratic that the swaps follow. With
    several pools, each takes its steps within itself.

    Attributes:
        epsilon: least gain of a swap, in twice the objective.
        rho: a pruned entry at place p of its order is tried with the kept ones at p - rho .. p + rho.
        tau: pruned entries without a swap that end a step.
        steps: most steps.
        patience: steps without a better score that end the search.
        score: compares masks `[m, n]`; by default the problem's value.
    """

    epsilon: float = 1e-4
    rho: int = 10
    tau: int = 20
    steps: int = 50
    patience: int = 5
    score: Score | None = None

    name: ClassVar[str] = "swapping"
    summary: ClassVar[str] = "greedy swapping local search (Yu et al. 2022, Algorithm 1)"
    variants: ClassVar[tuple[str, ...]] = ("selection",)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        mask = control.warm_start
        if mask is None:
            mask = RandomizedMagnitude(score=self.score).run(problem, control.quiet()).mask
        pools, state = problem.pools, impacts(problem)
        x = pools.decisions(mask).ravel().copy()
        labels = pools.labels.ravel()
        state.reset(x)

        best, lowest = mask, state.value() if self.score is None else self.score(mask)
        control.report(state.value(), -np.inf, 0, mask)
        stale, swaps, step = 0, 0, 0
        reason: Status | None = control.stopped()
        while step < self.steps and stale < self.patience and reason is None:
            state.reset(x)
            made = self._step(state, x, labels, control.stopped)
            if not made:
                break
            step, swaps = step + 1, swaps + made
            mask = pools.expand(x.reshape(pools.labels.shape), problem.m)
            found = state.value() if self.score is None else self.score(mask)
            stale += 1
            if found < lowest:
                best, lowest, stale = mask, found, 0
                control.report(state.value(), -np.inf, step, mask)
            reason = control.stopped()
        stats = {"steps": step, "swaps": swaps, "score": lowest}
        return Outcome(best, reason=reason or Status.FEASIBLE, stats=stats)

    def _step(
        self,
        state: Impacts,
        x: NDArray[np.bool_],
        labels: NDArray[np.int64],
        stopped: Callable[[], Status | None],
    ) -> int:
        """One step in every pool; changes `x` and counts the swaps made."""
        pulls = state.all_pulls()
        alpha, beta = 2 * pulls - state.diagonal, 2 * pulls + state.diagonal
        order = np.lexsort((np.where(x, -alpha, beta), ~x, labels))
        made = 0
        for pool in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
            count = int(x[pool].sum())
            if 0 < count < len(pool) and stopped() is None:
                made += self._pool_step(state, x, pool[:count], pool[count:], beta)
        return made

    def _pool_step(
        self, state: Impacts, x: NDArray[np.bool_], leaving: Items, entering: Items, beta: NDArray[np.float64]
    ) -> int:
        """Swaps of one pool: `leaving` sorted by alpha, falling; `entering` are the kept ones.

        Swapping i out and j in changes twice the objective by `-alpha_i + beta_j - gamma_ij`, with
        alpha, beta at the present set and `gamma_ij = 2 A_ij`.
        """
        rank = beta[entering] - 2 * state.entries(int(leaving[0]), entering)
        entering = entering[np.argsort(rank, kind="stable")]
        free = np.ones(len(entering), dtype=bool)
        failures = made = 0
        for p, i in enumerate(leaving.tolist()):
            low = max(0, p - self.rho)
            window = low + np.flatnonzero(free[low : p + self.rho + 1])
            if p == 0:
                window = window[:1]
            j = self._partner(state, i, entering[window]) if window.size else None
            if j is None:
                failures += 1
                if p == 0 or failures >= self.tau or low >= len(entering):
                    break
                continue
            state.swap(i, int(entering[window[j]]))
            free[window[j]] = False
            x[i], x[entering[window[j]]] = False, True
            made += 1
        return made

    def _partner(self, state: Impacts, i: int, candidates: Items) -> int | None:
        """Place of the first candidate whose swap with i gains at least epsilon, or None."""
        both = np.append(candidates, i)
        pulls, diagonal = state.pull(both), state.diagonal[both]
        alpha = 2 * pulls[-1] - diagonal[-1]
        change = -alpha + 2 * pulls[:-1] + diagonal[:-1] - 2 * state.entries(i, candidates)
        gains = np.flatnonzero(change <= -self.epsilon)
        return int(gains[0]) if gains.size else None
