"""The quadratic subset-selection problem that every solver is given, and its two sources of truth."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.bounds.secure import certainly_semidefinite
from solvers.budget import GROUPS, POOLS, Budget, Pools
from solvers.hessian import Array, FactorHessian, Hessian, as_hessian
from solvers.hessian.base import CHUNK_BYTES, SINGULAR, condition, numbers
from solvers.hessian.refinement import Refined, refine
from solvers.hessian.supports import solve_each

Mask = NDArray[np.bool_]

EPS = float(np.finfo(np.float64).eps)
DIGITS = 1e-8
"""Relative error of a value beyond which it is computed in doubled precision."""
REMEMBERED = 4
"""Masks whose values are remembered."""


class _Priced(NamedTuple):
    """A mask's bits, and what it costs every row."""

    bits: NDArray[np.uint8]
    values: Array


class SubsetProblem:
    """Choose which weights of a layer to prune, at the least increase of a quadratic loss model.

    Moving the weights `W [m, n]` by `D [m, n]` changes the model by

        dL(D) = sum_r  G_r . D_r + 1/2 D_r H_r D_r'

    A mask (True where pruned) forces `D = -W` there. With `refit` (the *joint* variant) every
    survivor moves to where the model is least; without it (the *selection* variant) survivors stay.
    `movable` columns, such as a bias, are never pruned and move optimally in both variants; the
    budget counts only the other columns.

    Args:
        weights: `W [m, n]`, finite.
        hessian: `H`, `[n, n]` shared by all rows, `[m, n, n]` one per row, or a `Hessian`. Symmetric
            and positive semidefinite; positive definite when `refit`.
        budget: how many entries to prune, in which pools.
        refit: whether survivors move.
        gradient: `G [m, n]`, or None for zero.
        movable: column indices that may move but are never pruned.

    Raises:
        ValueError: naming the argument that is wrong, its value, and what would be right.
    """

    def __init__(
        self,
        weights: ArrayLike,
        hessian: ArrayLike | Hessian,
        budget: Budget,
        *,
        refit: bool = True,
        gradient: ArrayLike | None = None,
        movable: Sequence[int] | NDArray[np.int64] = (),
    ) -> None:
        self.W = _matrix(weights, "weights")
        self.m, self.n = self.W.shape
        if not self.n or not self.m:
            raise ValueError(f"weights have shape {self.W.shape}; need at least one row and one input")
        self.refit = bool(refit)
        self.G = None if gradient is None else _matrix(gradient, "gradient")
        if self.G is not None and self.G.shape != self.W.shape:
            raise ValueError(f"gradient has shape {self.G.shape}, the weights {self.W.shape}")
        self.movable = _columns(movable, self.n)
        self.prunable = np.setdiff1d(np.arange(self.n), self.movable)
        if not len(self.prunable):
            raise ValueError(f"movable lists all {self.n} columns; at least one must be left to prune")
        self.hessian = as_hessian(hessian, self.m, self.n, definite=self.refit)
        if not isinstance(budget, Budget):
            raise ValueError(f"budget must be a solvers.Budget, not {type(budget).__name__}")
        self.budget = budget
        self._priced: list[_Priced] = []
        self._best: tuple[_Priced, Array] | None = None
        self.pools: Pools = budget.laid_over(self.m, len(self.prunable))
        if len(self.movable) and not self.refit:
            for r in range(self.hessian.rows or 1):
                if condition(self.hessian.block(r, self.movable)) * len(self.movable) * EPS >= 1.0:
                    raise ValueError(SINGULAR)

    def __repr__(self) -> str:
        parts = [
            f"{self.m} x {self.n} weights, {'joint' if self.refit else 'selection'}, {self.budget}",
            *(["gradient"] if self.G is not None else []),
            *([f"{len(self.movable)} movable"] if len(self.movable) else []),
            type(self.hessian).__name__,
        ]
        return f"SubsetProblem({', '.join(parts)})"

    def describe(self) -> dict[str, Any]:
        """The problem as the fields of an instance file, see `solvers.instances.files`."""
        H = self.hessian
        fields: dict[str, Any] = {"weights": self.W, "refit": self.refit} | self.budget.describe()
        if isinstance(H, FactorHessian):
            fields |= {"factor": H.X, "damping": H.damping}
        else:
            fields["hessian"] = H.dense(0) if H.shared else np.stack([H.dense(r) for r in range(self.m)])
        if self.G is not None:
            fields["gradient"] = self.G
        if len(self.movable):
            fields["movable"] = self.movable
        return fields

    def with_budget(self, budget: Budget) -> SubsetProblem:
        """The same weights and curvature under another budget.

        Raises:
            ValueError: if no mask of this shape meets it.
        """
        other = copy.copy(self)
        other.budget, other.pools = budget, budget.laid_over(self.m, len(self.prunable))
        other._priced, other._best = [], None
        return other

    def row(self, r: int, prune: int | None = None) -> SubsetProblem:
        """One row alone, under its own budget.

        Args:
            r: which.
            prune: how many of its weights go; None for what a budget of its own says, as `per_row` and
                `n_of_m` are.
        """
        if prune is not None:
            budget = Budget.per_row(prune)
        elif self.budget.kind in ("n_of_m", GROUPS, POOLS) and not self.pools.coupled:
            budget = self.budget
        elif self.budget.kind == "per_row":
            budget = Budget.per_row(int(self.pools.prune[r]))
        else:
            raise ValueError(f"row {r} has no budget of its own under {self.budget}; say how many to prune")
        hessian = self.hessian if self.hessian.shared else self.hessian.dense(r)
        gradient = None if self.G is None else self.G[r : r + 1]
        return SubsetProblem(
            self.W[r : r + 1], hessian, budget, refit=self.refit, gradient=gradient, movable=self.movable
        )

    def value(self, mask: ArrayLike) -> float:
        """The loss increase of a mask: `sum_r G_r . D_r + 1/2 D_r H_r D_r'` at the move it implies.

        Args:
            mask: `[m, n]` bool, True where pruned; must meet the budget.
        """
        return float(self.row_values(mask).sum())

    def weights(self, mask: ArrayLike) -> Array:
        """`[m, n]` weights after pruning: zero where pruned, refitted or untouched elsewhere."""
        mask = self.check(mask)
        known = self._price(mask)
        W = self.W + (self._best[1] if self._best and self._best[0] is known else self._settled(mask)[0])
        W[mask] = 0.0
        return W

    def row_values(self, mask: ArrayLike) -> Array:
        """`[m]` each row's share of `value(mask)`."""
        return self._price(self.check(mask)).values.copy()

    def move(self, mask: Mask) -> Array:
        """The optimal move `D [m, n]` of a mask.

        `D_P = -w_P`; the variables M that may move (survivors when `refit`, and `movable` columns)
        take `D_M = -H_MM^-1 (H_MP D_P + g_M)`, which for a zero gradient is CBS-U (Yu et al. 2022).
        """
        return self._settled(mask)[0]

    def _settled(self, mask: Mask) -> tuple[Array, Array]:
        """The move of a mask, and what it costs every row `[m]`."""
        D, values, moving = np.where(mask, -self.W, 0.0), np.zeros(self.m), self._moving(mask)
        for rows in self._parts():
            if moving[rows].any():
                pull = self.hessian.matmul(D[rows])
                if self.G is not None:
                    pull += self.G[rows]
                D[rows] -= solve_each(self.hessian, moving[rows], pull)
            values[rows] = 0.5 * np.einsum("ri,ri->r", D[rows], self.hessian.matmul(D[rows]))
        if self.G is not None:
            values += np.einsum("ri,ri->r", self.G, D)
        for r in np.flatnonzero(self._doubtful(D, values, moving)).tolist():
            D[r], values[r], _ = self.refined(r, mask[r], D[r])
        return D, values

    def _moving(self, mask: Mask) -> Mask:
        """Where weights move: survivors when `refit`, and `movable` columns, of rows that are pulled at."""
        moving = ~mask if self.refit else np.zeros_like(mask)
        moving[:, self.movable] = True
        if self.G is None:
            moving &= mask.any(axis=1, keepdims=True)
        return moving

    def _doubtful(self, D: Array, values: Array, moving: Mask) -> Mask:
        """`[m]` rows whose values might not be right to `DIGITS`.

        Sums round by about `n^1/2 eps` of their terms; a solve of condition k leaves the cost of a move too
        high by about `(k eps)^2` of them, as the gradient is zero at the best.
        """
        size = (np.abs(D) * self._root).sum(axis=1) ** 2
        if self.G is not None:
            size += np.abs(self.G * D).sum(axis=1)
        loss = EPS * np.sqrt(self.n) * np.where(moving.any(axis=1), np.maximum(1.0, self._amplified), 1.0)
        return np.asarray(loss * size > DIGITS * np.abs(values))

    @cached_property
    def _root(self) -> Array:
        """`H_ii^1/2`, `[n]` or `[m, n]`."""
        return np.sqrt(np.maximum(self.hessian.diagonal(), 0.0))

    @cached_property
    def _amplified(self) -> Array:
        """`[m]` the squared condition of every row's solves, in units of `1 / eps`."""
        rows = range(self.hessian.rows or 1)
        if self.refit:
            found = [self.hessian.condition(r) for r in rows]
        else:
            found = [condition(self.hessian.block(r, self.movable)) for r in rows]
        return EPS * np.broadcast_to(np.array(found), self.m) ** 2

    def refined(self, row: int, pruned: Mask, start: Array | None = None) -> Refined:
        """One row's move and cost, computed in doubled precision.

        Args:
            row: which.
            pruned: `[n]` its mask, which need not meet the budget.
            start: `[n]` a move to start from.
        """
        mask = np.zeros(self.W.shape, dtype=bool)
        mask[row] = pruned
        D = np.where(pruned, -self.W[row], 0.0) if start is None else start
        gradient = None if self.G is None else self.G[row]
        found = refine(self.hessian, row, self._moving(mask)[row], D, gradient)
        return found._replace(cost=max(found.cost, self.floor)) if found.cost < 0.0 else found

    def _price(self, mask: Mask) -> _Priced:
        """What a mask costs. Searches ask about the same few masks again and again, so some are remembered.

        The move is, too, of the best mask so far: what is asked for in the end.
        """
        bits = np.packbits(mask)
        for known in self._priced:
            if np.array_equal(known.bits, bits):
                return known
        D, values = self._settled(mask)
        found = _Priced(bits, values)
        self._priced = [*self._priced[1 - REMEMBERED :], found]
        if self._best is None or values.sum() <= self._best[0].values.sum():
            self._best = found, D
        return found

    def _parts(self) -> Iterator[slice]:
        """Rows that are worked on at once: all of them, or as many as fit a part of memory."""
        rows = self.m
        if self.hessian.shared and not self.hessian.implicit:
            rows = max(1, CHUNK_BYTES // (64 * self.n))
        for start in range(0, self.m, rows):
            yield slice(start, min(start + rows, self.m))

    def check(self, mask: ArrayLike) -> Mask:
        """The mask as a bool array.

        Raises:
            ValueError: if its shape is wrong, it misses the budget, or it prunes a movable column.
        """
        mask = np.asarray(mask)
        if mask.shape != self.W.shape:
            raise ValueError(f"mask has shape {mask.shape}, the weights {self.W.shape}")
        if mask.dtype != bool:
            if not np.isin(mask, (0, 1)).all():
                raise ValueError("mask must hold booleans, True where pruned")
            mask = mask.astype(bool)
        if len(self.movable) and mask[:, self.movable].any():
            raise ValueError("mask prunes a movable column")
        wrong = self.pools.violation(mask[:, self.prunable] if len(self.movable) else mask)
        if wrong:
            raise ValueError(f"mask does not meet the budget: {wrong}")
        return mask

    @cached_property
    def floor(self) -> float:
        """A value that no mask goes below: 0 without a gradient, minus infinity with one.

        Also minus infinity for a selection whose curvature is semidefinite only up to rounding.
        """
        if self.G is not None:
            return -math.inf
        if self.refit or isinstance(self.hessian, FactorHessian):
            return 0.0
        used = np.union1d(np.flatnonzero(self.W.any(axis=0)), self.movable)
        blocks = (self.hessian.block(r, used) for r in range(self.hessian.rows or 1))
        return 0.0 if all(certainly_semidefinite(block) for block in blocks) else -math.inf

    @cached_property
    def rounding(self) -> float:
        """How far off the cost of a mask may be where a search computes it in double precision."""
        rows = range(0 if self.hessian.implicit or not self.refit else self.hessian.rows or 1)
        condition = max((self.hessian.condition(r) for r in rows), default=1.0)
        size = float(((np.abs(self.W) * self._root).sum(axis=1) ** 2).sum())
        return float(4.0 * self.n * EPS * (size + condition * self.scale))

    @cached_property
    def scale(self) -> float:
        """A size to measure rounding against: the cost of pruning everything, plus gradient terms."""
        D = self.W
        total = 0.5 * float(np.abs(D * self.hessian.matmul(D)).sum())
        return total + (0.0 if self.G is None else float(np.abs(self.G * D).sum()))


def _matrix(A: ArrayLike, name: str) -> Array:
    B = numbers(A, name)
    if B.ndim != 2:
        raise ValueError(f"{name} must be a matrix [m, n], got shape {B.shape}")
    if not np.isfinite(B).all():
        i, j = np.argwhere(~np.isfinite(B))[0]
        raise ValueError(f"{name} has {B[i, j]} at [{i}, {j}]; every entry must be finite")
    B.setflags(write=False)
    return B


def _columns(index: Sequence[int] | NDArray[np.int64], n: int) -> NDArray[np.int64]:
    given = np.asarray(index)
    columns = np.unique(given.ravel())
    whole = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
    if not whole or columns.size != given.size or (columns < 0).any() or (columns >= n).any():
        raise ValueError(f"movable must list distinct columns between 0 and {n - 1}, got {given.tolist()}")
    return columns.astype(np.int64)
