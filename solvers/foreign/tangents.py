"""Tangents of the relaxed cost as cuts in integers: the outer approximation of Bertsimas & Van Parys (2020).

With `H = R + diag(d)`, R positive semidefinite, the cost of a mask is a convex function of its indicators,
kept z (joint) or pruned x (selection), and for any point u

    joint      cost(z) >= base - sum_i z_i s_i,   base = 1/2 w'Hw - 1/2 u'Ru,  s_i = (H w - R u)_i^2 / (2 d_i)
    selection  cost(x) >= base - sum_i x_i s_i,   base = -1/2 u'Ru,  s_i = -((R u)_i + 1/2 d_i - c_i)

with equality at the indicators that u belongs to. Both are linear in the indicators, so they are cuts of
a master problem, and they stay cuts when rounding makes base smaller and scores larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from solvers.bounds.evaluate import block_terms, margin
from solvers.form.blocks import Block, blocks
from solvers.hessian import Array
from solvers.problem import SubsetProblem

BITS = 26
"""An incumbent's cost is about `2^BITS` in the integers of the master."""
MOST = 56
"""The coefficients of a cut add up to less than about `2^MOST`, inside 64-bit integers."""


@dataclass(frozen=True)
class Tangent:
    """`cost >= base - sum_i scores_i` over the indicators that are one, for rows that share a decision.

    Attributes:
        base: rounded down.
        scores: `[n]`, rounded up.
    """

    base: float
    scores: Array


def tangent(block: Block, d: Array, u: Array) -> Tangent:
    """The cut of a block at a point, what its evaluation may have lost taken off.

    A joint cost is not negative, so no score needs to be larger than what it is taken from.

    Args:
        block: the block.
        d: `[g, n]` split, as `solvers.bounds.secure` leaves it.
        u: `[g, n, c]` any point, see `solvers.bounds.evaluate.relaxed_point`.
    """
    base, scores = block_terms(block, d, u)
    base -= margin(block.n) * (float(np.abs(scores).sum()) + abs(block.constant))
    return Tangent(base, np.minimum(scores, max(base, 0.0)) if block.refit else scores)


@dataclass(frozen=True)
class IntegerCut:
    """`eta >= base - sum_i scores_i` over the indicators that are one, in integers.

    Attributes:
        base: a whole number.
        scores: `[n]` whole numbers.
    """

    base: int
    scores: Sequence[int]


def in_integers(cut: Tangent, scale: float) -> IntegerCut | None:
    """A tangent times a power of two, rounded to the side on which `eta = floor(scale cost)` meets it.

    `base` is rounded down and scores up: the right-hand side at whole indicators is then a whole number not
    above `scale cost`, so not above its floor. None where the numbers would not fit the master's.
    """
    size = scale * (abs(cut.base) + float(np.abs(cut.scores).sum()))
    if not size < 2.0 ** (MOST + 2):
        return None
    return IntegerCut(math.floor(scale * cut.base), np.ceil(scale * cut.scores).astype(np.int64).tolist())


@dataclass(frozen=True)
class Layer:
    """The decisions that share pools, as one block and as the rows that it is made of.

    Attributes:
        whole: all decisions, of one curvature a row: block diagonal where rows share no decision.
        d: `[g, n]` its split.
        rows: blocks of the rows, whose costs add up; one alone where they share their decisions.
        splits: `[rows]` of `[g, n]`.
    """

    whole: Block
    d: Array
    rows: Sequence[Block]
    splits: Sequence[Array]

    @property
    def spans(self) -> list[slice]:
        """Where the rows' decisions stand among all of them."""
        ends = np.cumsum([row.n for row in self.rows])
        return [slice(int(end) - row.n, int(end)) for row, end in zip(self.rows, ends, strict=True)]

    def tangents(self, u: Array) -> list[Tangent]:
        """A cut for every row at a point of the whole, `[g, n, c]`."""
        return [
            tangent(row, d, u[:, span])
            for row, d, span in zip(self.rows, self.splits, self.spans, strict=True)
        ]

    def scale(self, unit: float) -> float:
        """The power of two that makes a cost of `unit` about `2^BITS`, or less where sums would not fit."""
        size = (self.whole.n + 2) * max(sum(row.scale for row in self.rows), unit)
        return float(2.0 ** math.floor(min(BITS - math.log2(unit), MOST - math.log2(size))))


def layer(problem: SubsetProblem, d: Array) -> Layer:
    """One part of a reduced problem.

    Args:
        problem: whose decisions share pools, or a row alone.
        d: `[m, n]` split of the Hessians (joint), or `[b, n]` of the rows' `A` (selection).
    """
    if problem.budget.kind != "per_layer" or problem.m == 1:
        block = blocks(problem)[0]
        own = np.array(d[: len(block.H)])  # a copy: what is broadcast can not be written to
        return Layer(block, own, [block], [own])
    rows = blocks(problem, np.ones(problem.m, dtype=np.int64))
    first = rows[0]
    whole = replace(
        first,
        H=scipy.linalg.block_diag(*(row.H[0] for row in rows))[None],
        B=np.concatenate([row.B for row in rows], axis=1),
        W=np.concatenate([row.W for row in rows], axis=1),
        constant=sum(row.constant for row in rows),
        labels=np.zeros(problem.W.size, dtype=np.int64),
        keep=problem.pools.keep,
        rows=np.arange(problem.m),
        shared=None,
    )
    return Layer(whole, d.reshape(1, -1), rows, [own[None] for own in np.array(d)])
