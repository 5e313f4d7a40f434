"""Pruning by a score: one look at every weight, the least go; or the best of many random bucketings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.budget import Pools
from solvers.control import Control
from solvers.greedy.elimination import invert
from solvers.hessian import Array, FactorHessian
from solvers.heuristics.published.chita import largest
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

BATCH = 10
"""Bucketings that are scored together."""


@dataclass(frozen=True)
class Magnitude(Solver):
    """Least `|w|` first; columns by their Euclidean norm. The curvature is not looked at."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "smallest weights first"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        return _least(problem, problem.W**2, control)


@dataclass(frozen=True)
class Saliency(Solver):
    """The least cost alone: `w_j^2 / (2 [H^-1]_jj)` if survivors move, else `1/2 H_jj w_j^2 - g_j w_j`.

    The first is OBS's saliency (Hassibi & Stork 1992) and WoodFisher's, the second OBD's. Columns go by the
    sum over their rows.
    """

    name: ClassVar[str] = "saliency"
    summary: ClassVar[str] = "least cost of going alone, all at once (WoodFisher's pick)"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.refit:
            H = problem.hessian
            inverse = np.stack([np.diagonal(invert(H.dense(r))) for r in range(H.rows or 1)])
            scores = problem.W**2 / inverse
        else:
            scores = 0.5 * problem.hessian.diagonal() * problem.W**2
            scores -= 0.0 if problem.G is None else problem.G * problem.W
        return _least(problem, scores, control)


@dataclass(frozen=True)
class Wanda(Solver):
    """Least `|w_j| sqrt(H_jj)` first: Wanda's score (Sun et al. 2024) on a layer Gram."""

    name: ClassVar[str] = "wanda"
    summary: ClassVar[str] = "least |w| sqrt(H_jj) first (Sun et al. 2024)"

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        return _least(problem, problem.hessian.diagonal() * problem.W**2, control)


def _least(problem: SubsetProblem, scores: Array, control: Control) -> Outcome:
    mask = largest(problem.pools, scores)
    control.report(problem.value(mask), -np.inf, mask=mask)
    return Outcome(mask)


Score = Callable[[Mask], float]
"""What masks are compared by: less is better."""


@dataclass(frozen=True)
class RandomizedMagnitude(Solver):
    """Yu et al. 2022, Algorithm 2: split every pool at random into buckets, prune each by magnitude.

    The published code rounds within buckets and so misses its sparsity; here the buckets' counts
    add up to the pool's.

    Attributes:
        repeats: number of bucketings tried (S).
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
            for _ in range(min(BATCH, self.repeats - tried) or 1):
                buckets = bucketed(pools, self.max_buckets, rng)
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
