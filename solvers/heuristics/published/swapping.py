"""Greedy swapping local search: Algorithm 1 of the Combinatorial Brain Surgeon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.control import Control
from solvers.heuristics.published.impacts import Impacts, Items, impacts
from solvers.heuristics.published.randomized_magnitude import RandomizedMagnitude, Score
from solvers.problem import SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver


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
