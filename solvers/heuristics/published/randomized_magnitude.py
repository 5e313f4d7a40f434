"""Randomized magnitude pruning: many random bucketings of the weights, the best mask kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.budget import Pools
from solvers.control import Control
from solvers.hessian import FactorHessian
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

BATCH = 10
"""Bucketings that are scored together."""


Score = Callable[[Mask], float]
"""What masks are compared by: less is better."""


@dataclass(frozen=True)
class RandomizedMagnitude(Solver):
    """Yu et al. 2022, Algorithm 2: split every pool at random into buckets, prune each by magnitude.

    As in the published code, the first mask that is tried is that of magnitude itself. That code rounds
    within buckets and so misses its sparsity; here the buckets' counts add up to the pool's.

    Attributes:
        repeats: number of masks tried (S).
        max_buckets: a pool of N entries has `min(floor(sqrt(N)), max_buckets)` buckets (B).
        score: compares masks `[m, n]`; by default the problem's value. The paper takes the loss on
            a sample of training data.
    """

    repeats: int = 50
    max_buckets: int = 1000
    score: Score | None = None

    name: ClassVar[str] = "randomized-magnitude"
    summary: ClassVar[str] = "magnitude within random buckets, the best of many (Yu et al. 2022)"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        pools, rng = problem.pools, np.random.default_rng(control.seed)
        sizes = np.square(problem.W)
        if pools.coupled:
            sizes = sizes.sum(axis=0, keepdims=True)
        best, lowest, tried = None, np.inf, 0
        reason: Status | None = None
        while best is None or (tried < self.repeats and reason is None):
            masks = []
            for i in range(min(BATCH, self.repeats - tried) or 1):
                buckets = bucketed(pools, self.max_buckets, rng) if tried + i else pools
                masks.append(pools.expand(buckets.smallest(sizes), problem.m))
            found = values(problem, masks) if self.score is None else [self.score(mask) for mask in masks]
            tried += len(masks)
            first = int(np.argmin(found))
            if best is None or found[first] < lowest:
                best, lowest = masks[first], found[first]
                control.report(problem.value(best), -np.inf, tried, best)
            reason = control.stopped()
        return Outcome(best, reason=reason or Status.FEASIBLE, stats={"bucketings": tried, "score": lowest})


def values(problem: SubsetProblem, masks: Sequence[Mask]) -> list[float]:
    """The problem's value at several masks; of selections on a factor all in one product with it."""
    hessian = problem.hessian
    if problem.refit or len(problem.movable) or not isinstance(hessian, FactorHessian):
        return [problem.value(mask) for mask in masks]
    D = np.where(np.stack(masks), -problem.W, 0.0)
    squares = (hessian.image(D.reshape(-1, problem.n)) ** 2).reshape(len(D), -1).sum(axis=1)
    linear = 0.0 if problem.G is None else np.einsum("bri,ri->b", D, problem.G)
    found = 0.5 * (squares + hessian.damping * np.einsum("bri,bri->b", D, D)) + linear
    return [float(value) for value in found]


def bucketed(pools: Pools, limit: int, rng: np.random.Generator) -> Pools:
    """Pools split at random into buckets of nearly equal size that prune the same number in all.

    Args:
        pools: a budget's pools.
        limit: of the number of buckets in a pool.
        rng: source of randomness.
    """
    labels = pools.labels.ravel()
    order = np.lexsort((rng.random(labels.size), labels))
    first = np.cumsum(pools.sizes) - pools.sizes
    count = np.clip(np.sqrt(pools.sizes).astype(np.int64), 1, limit)
    offset = np.cumsum(count) - count
    owner = labels[order]
    place = np.arange(labels.size) - first[owner]
    bucket = np.empty(labels.size, np.int64)
    bucket[order] = offset[owner] + place * count[owner] // pools.sizes[owner]
    sizes = np.bincount(bucket, minlength=int(count.sum()))
    pool = np.repeat(np.arange(len(count)), count)
    upto = np.cumsum(sizes) - first[pool]
    share = upto * pools.prune[pool] // pools.sizes[pool]
    prune = np.diff(share, prepend=0)
    prune[offset] = share[offset]
    return Pools(bucket.reshape(pools.labels.shape), prune, sizes, pools.coupled)
