"""A quadratic model of the loss in the weights of some layers: what a selection problem is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cbs.budgets import flat_budget
from cbs.change import Change, Weights
from cbs.earlier import keep_out, staying
from solvers import Budget, FactorHessian, SubsetProblem
from solvers.hessian import Array, Hessian, as_hessian
from solvers.problem import Mask

T = TypeVar("T", bound=np.generic)

OWN_WIDTH = 256
"""Inputs up to which rows whose earlier masks differ get curvatures of their own."""
OWN_BYTES = 1 << 29
"""What these may take in a layer."""


@dataclass(frozen=True)
class Diagonal:
    """A curvature without off-diagonal entries, perhaps of weights whose own bias follows them.

    With a bias a row's model is `1/2 sum_j values_j D_j^2 + 1/2 corner (D_b + sum_j shifts_j D_j)^2`, which
    is least where the bias moves by `-sum_j shifts_j D_j`: the shifts of all weights add up.

    Attributes:
        values: `[m, n]`, one for every weight.
        shifts: `[m, n]` how far the bias moves against each weight; None without a bias.
        corner: `[m]` the bias's own curvature; None without one.
    """

    values: Array
    shifts: Array | None = None
    corner: Array | None = None


@dataclass(frozen=True, eq=False)
class Quadratic:
    """`sum_r G_r . D_r + 1/2 D_r H D_r'` for a move `D` of rows of weights.

    The rows are those of one layer, perhaps with the bias as their last column. Where the model is `flat`
    there is a single row: all weights of its layers, layer after layer, row after row.

    Attributes:
        index: places of its layers in the network.
        dense: the trained parameters of every layer.
        H: damped curvature: a matrix or a factor that the rows share; a matrix for every row, `[m, n, n]`; or
            a diagonal for every row.
        earlier: for every layer `[m, n]`, True where pruned before: these weights stay zero.
        name: of the layer; None where there are several.
        damping: what was added to the diagonal of the weights' part, absolute; `[m]` where rows have
            matrices of their own.
        flat: whether the weights are laid out in a single row.
        bias: whether the last column is the bias, which moves and is never pruned.
        gradient: `G`, as the rows are; None for zero.
    """

    index: range
    dense: Sequence[Weights]
    H: Array | FactorHessian | Diagonal
    earlier: Sequence[Mask]
    name: str | None = None
    damping: float | Array = 0.0
    flat: bool = False
    bias: bool = False
    gradient: Array | None = None

    @cached_property
    def W(self) -> Array:
        """`[rows, columns]` the dense parameters."""
        return self.rows_of(self.dense)

    @property
    def n(self) -> int:
        """Columns that may be pruned."""
        return int(self.W.shape[1] - self.bias)

    @property
    def diagonal(self) -> Array:
        """Undamped diagonal of the weights' part of `H`: `[n]`, or `[rows, n]`."""
        if isinstance(self.H, Diagonal):
            return self._undamped_values
        if isinstance(self.H, FactorHessian):
            return np.asarray(np.maximum(self.H.diagonal() - self.damping, 0.0))
        diagonal = np.diagonal(self.H, axis1=-2, axis2=-1)[..., : self.n]
        return np.asarray(np.maximum(diagonal - np.expand_dims(self.damping, -1), 0.0))

    @property
    def _undamped_values(self) -> Array:
        assert isinstance(self.H, Diagonal)
        if not np.any(self.damping):
            return self.H.values
        return np.asarray(np.maximum(self.H.values - self.damping, 0.0))

    @property
    def own_diagonal(self) -> Array:
        """`diagonal` where a weight's own bias follows it: that of `H_ww - H_wb H_bb^-1 H_bw`, undamped."""
        if not self.bias or not isinstance(self.H, np.ndarray):
            return self.diagonal
        across = self.H[..., -1, : self.n]
        return np.asarray(np.maximum(self.diagonal - across * across / self.H[..., -1, -1:], 0.0))

    def rows(self, live: Mask) -> Quadratic:
        """The model of some rows, `live [m]`, of a layer with one matrix `H` for all."""
        (dense,), (earlier,) = self.dense, self.earlier
        bias = None if dense.bias is None else dense.bias[live]
        gradient = None if self.gradient is None else self.gradient[live]
        return replace(
            self, dense=(Weights(dense.W[live], bias),), earlier=(earlier[live],), gradient=gradient
        )

    @property
    def constant(self) -> Array:
        """The diagonal entry of the bias, of a model that has one; `[m]` where every row has its own."""
        assert self.bias
        if isinstance(self.H, Diagonal):
            assert self.H.corner is not None
            return self.H.corner
        assert isinstance(self.H, np.ndarray)
        return np.asarray(self.H[..., -1, -1])

    @cached_property
    def inverse_diagonal(self) -> Array:
        """`[H^-1]_qq` of every weight q, `[n]` or `[rows, n]`; with a bias, which then moves too.

        Raises:
            ValueError: if `H` is singular.
        """
        if isinstance(self.H, Diagonal):
            if not (self.H.values > 0).all():
                raise ValueError(f"layer {self.name!r}: its curvature has a zero; give a positive damping")
            return np.asarray(1.0 / self.H.values)
        hessian, every = self._hessian(), np.arange(self.W.shape[1])
        rows = [hessian.inverse_diagonal(r, every)[: self.n] for r in range(hessian.rows or 1)]
        return rows[0] if hessian.shared else np.stack(rows)

    def _hessian(self) -> Hessian:
        used = self.W.shape[1]
        return as_hessian(self._curvature(used), len(self.W), used, definite=True)

    def rows_of(self, weights: Sequence[Weights]) -> Array:
        """Parameters of the layers, laid out as the model's rows are."""
        if self.flat:
            return np.concatenate([part.W.ravel() for part in weights])[None, :]
        return weights[0].augmented if self.bias else weights[0].W

    def undamped(self) -> Quadratic:
        """The model without what was added to its diagonal, for selection, which needs no inverse."""
        if isinstance(self.H, FactorHessian):
            return replace(self, H=FactorHessian(self.H.X), damping=0.0)
        if isinstance(self.H, Diagonal):
            return replace(self, H=replace(self.H, values=self._undamped_values), damping=0.0)
        H, index = self.H.copy(), np.arange(self.n)
        H[..., index, index] -= np.expand_dims(self.damping, -1)
        return replace(self, H=H, damping=0.0)

    def split(self, rows: NDArray[T]) -> list[NDArray[T]]:
        """`[rows, n]` values as matrices `[m, n]`, one for each of the layers."""
        if not self.flat:
            return [rows]
        parts = np.split(rows.ravel(), np.cumsum([part.W.size for part in self.dense])[:-1])
        return [part.reshape(weights.W.shape) for part, weights in zip(parts, self.dense, strict=True)]

    def join(self, masks: Sequence[Mask]) -> Mask:
        """The layers' masks laid out as the rows are, with columns that are not pruned: `[rows, columns]`."""
        if self.flat:
            return np.concatenate([mask.ravel() for mask in masks])[None, :]
        return np.pad(masks[0], ((0, 0), (0, int(self.bias))))

    def problem(
        self,
        budget: Budget,
        *,
        refit: bool = True,
        bias: bool | None = None,
        scales: Array | None = None,
        own: bool = True,
    ) -> SubsetProblem:
        """The joint problem, in which survivors and the bias move, or the selection problem: they stay.

        Args:
            budget: of the layer; of several layers, of all their weights together.
            refit: whether the problem is the joint one.
            bias: whether the bias, if there is one, moves; None for where the survivors do.
            scales: `[rows]` factor of every row, not negative; None for ones. It is put into the weights and
                the gradient, which are multiplied by its root.
            own: whether rows whose earlier masks differ may have curvatures of their own.

        Raises:
            ValueError: if `H` is singular where weights move, or columns couple rows laid out in one.
        """
        if self.flat and budget.kind == "columns" and not refit:
            return self._column_problem(budget)
        used = self.W.shape[1] if (refit if bias is None else bias) else self.n
        H = self._curvature(used, own)
        W, G = self.W[:, :used], None if self.gradient is None else self.gradient[:, :used]
        if refit and G is not None and isinstance(H, np.ndarray) and self._mixes(H):
            G = staying(G, H, self.earlier[0])
        if scales is not None:
            root = np.sqrt(scales)[:, None]
            W, G = root * W, None if G is None else root * G
        if self.flat and len(self.dense) == 1:
            budget = flat_budget(budget, *self.dense[0].W.shape)
        try:
            return SubsetProblem(W, H, budget, refit=refit, gradient=G, movable=range(self.n, used))
        except ValueError as error:
            raise ValueError(f"layer {self.name!r}: {error}" if self.name else str(error)) from None

    def _curvature(self, used: int, own: bool = True) -> Array | FactorHessian:
        """`H` on the first columns, in which weights pruned before have no part."""
        assert not isinstance(self.H, Diagonal), "a diagonal leaves nothing to solve"
        if isinstance(self.H, FactorHessian):
            return self.H
        H = self.H[..., :used, :used]
        earlier = self.earlier[0]
        alike = H.ndim == 3 or bool((earlier == earlier[:1]).all())
        return decoupled(H, earlier) if earlier.any() and (alike or own) else H

    def _mixes(self, H: Array) -> bool:
        """Whether a curvature, part of this one, says of weights pruned before that they would move."""
        whole = isinstance(self.H, np.ndarray) and np.may_share_memory(H, self.H)
        return whole and bool(self.earlier[0].any())

    def _column_problem(self, budget: Budget) -> SubsetProblem:
        """Selection of columns: column j's weight is its norm `v_j`, its gradient `sum_r g_rj w_rj / v_j`."""
        assert isinstance(self.H, FactorHessian)
        W = self.dense[0].W
        v = np.linalg.norm(W, axis=0)
        X = np.einsum("srj,rj->sj", self.H.X.reshape(-1, *W.shape), W) / np.where(v > 0, v, 1.0)
        return SubsetProblem(v[None, :], FactorHessian(X, self.H.damping), budget, refit=False)

    def masks(self, problem: SubsetProblem, mask: Mask) -> list[Mask]:
        """The layers' masks of an answer to a `problem` of this model; they prune what was pruned before."""
        p, earlier = problem.prunable, self.join(self.earlier)[:, : self.n]
        if self.flat and problem.pools.coupled:
            earlier = self.earlier[0][:1]
        return self.lift(problem, keep_out(mask[:, p], earlier, problem.pools, problem.W[:, p]))

    def lift(self, problem: SubsetProblem, mask: Mask) -> list[Mask]:
        """The layers' masks `[m, n]` from one of the prunable columns of a `problem` of this model."""
        if self.flat and problem.pools.coupled:
            return [np.repeat(mask, len(self.dense[0].W), axis=0)]
        return self.split(mask)

    def refit(self, masks: Sequence[Mask], problem: SubsetProblem | None = None) -> Array:
        """`[rows, columns]` after pruning, where survivors and the bias move to the model's minimum.

        `w* = w - H^-1[:,P] ([H^-1]_PP)^-1 w_P` (CBS-U, Yu et al. 2022), in every row.

        Args:
            masks: of the layers.
            problem: the joint problem, where there is one already.
        """
        mask = self.join(masks)
        if isinstance(self.H, Diagonal):
            return self.settle(masks)
        if problem is None or not problem.refit:
            counts = mask.sum(axis=1).tolist()
            budget = Budget.per_layer(counts[0]) if self.flat else Budget.per_row(counts)
            problem = SubsetProblem(
                self.W, self._curvature(self.W.shape[1]), budget,
                gradient=self.gradient, movable=range(self.n, self.W.shape[1]),
            )  # fmt: skip
        return problem.weights(mask)

    def settle(self, masks: Sequence[Mask]) -> Array:
        """`[rows, columns]` after pruning, where survivors stay and the bias moves to the model's minimum.

        `D_b = -(H_bw D_w + g_b) / H_bb` in every row: elimination-compensation (Ballini et al. 2026), in
        which what every pruned weight asks of the bias adds up.

        Args:
            masks: of the layers.
        """
        rows = np.where(self.join(masks), 0.0, self.W)
        if not self.bias:
            return rows
        D = (rows - self.W)[:, : self.n]
        if isinstance(self.H, Diagonal):
            assert self.H.shifts is not None
            rows[:, -1] -= np.einsum("ri,ri->r", self.H.shifts, D)
            return rows
        assert isinstance(self.H, np.ndarray)
        across = np.broadcast_to(self.H[..., -1, : self.n], D.shape)
        pull = np.einsum("ri,ri->r", across, D)
        if self.gradient is not None:
            pull += self.gradient[:, -1]
        rows[:, -1] -= pull / self.H[..., -1, -1]
        return rows

    def single_updates(self, masks: Sequence[Mask]) -> Array:
        """`[rows, columns]` after what each weight would do alone, added up: WoodFisher's update.

        `D = -sum_{q in P} w_q / [H^-1]_qq H^-1 e_q`; the pruned are then set to zero (Singh & Alistarh 2020).
        """
        if isinstance(self.H, Diagonal):
            return self.settle(masks)  # what a weight does alone is to go
        mask = self.join(masks)
        pull = np.zeros(self.W.shape)
        pull[:, : self.n] = np.where(mask[:, : self.n], self.W[:, : self.n] / self.inverse_diagonal, 0.0)
        hessian, every = self._hessian(), np.arange(self.W.shape[1])
        if hessian.shared:
            D = -hessian.solve(0, every, pull.T).T if len(pull) > 1 else -hessian.solve(0, every, pull[0])
        else:
            D = -np.stack([hessian.solve(r, every, pull[r]) for r in range(len(pull))])
        return np.where(mask, 0.0, self.W + D)

    def changes(self, masks: Sequence[Mask], rows: Array) -> list[Change]:
        """What becomes of every layer, from its mask and the rows after pruning."""
        biases = [rows[:, -1].copy()] if self.bias else [part.bias for part in self.dense]
        parts = self.split(rows[:, : self.n])
        return [Change(mask, Weights(W.copy(), b)) for mask, W, b in zip(masks, parts, biases, strict=True)]

    def row_values(self, moved: Sequence[Weights]) -> Array:
        """`[rows]` damped model when the dense parameters become `moved`; of a matrix `H`, or one a row."""
        D = self.rows_of(moved) - self.W
        if isinstance(self.H, Diagonal) and not self.bias:
            return np.asarray(0.5 * np.einsum("ri,ri,ri->r", self.H.values, D, D))
        assert isinstance(self.H, np.ndarray)
        return np.asarray(0.5 * np.einsum("ri,ri->r", product(D, self.H), D))

    def scale(self, moved: Sequence[Weights]) -> float:
        """What `row_values` would sum to without cancellation: `1/2 sum_r |D_r| |H| |D_r'|`."""
        if isinstance(self.H, Diagonal):
            return float(self.row_values(moved).sum())
        assert isinstance(self.H, np.ndarray)
        D = np.abs(self.rows_of(moved) - self.W)
        return float(0.5 * np.einsum("ri,ri->", product(D, np.abs(self.H)), D))

    def damage(self, moved: Sequence[Weights]) -> Array:
        """`[rows]` of `1/2 D H D'` without damping: the loss increase that the model predicts."""
        D = self.rows_of(moved) - self.W
        if isinstance(self.H, FactorHessian):
            return np.asarray(0.5 * np.square(self.H.image(D)).sum(axis=1))
        if isinstance(self.H, Diagonal):
            own = D[:, : self.n]
            found = 0.5 * (self.diagonal * own * own).sum(axis=1)
            if self.H.shifts is not None and self.H.corner is not None:
                found += 0.5 * self.H.corner * (D[:, -1] + (self.H.shifts * own).sum(axis=1)) ** 2
            return np.asarray(found)
        own = D[:, : self.n]
        return np.asarray(self.row_values(moved) - 0.5 * self.damping * (own * own).sum(axis=1))


def decoupled(H: Array, earlier: Mask) -> Array:
    """A layer's curvature in which weights pruned before have no part: `[n, n]`, or `[m, n, n]` one a row.

    Their rows and columns are zero but for the diagonal: such a weight, which is zero, never moves, and it
    costs nothing to prune it. Where the rows differ and their matrices would be too wide or large, it is `H`
    itself: a mask that prunes what was pruned before costs the same under both, and any other no more.

    Args:
        H: `[n, n]`, with further columns perhaps for what is never pruned; or `[m, n, n]`.
        earlier: `[m, n]`, True where pruned before.
    """
    shared, width = H.ndim == 2, H.shape[-1]
    rows = earlier[:1] if (earlier == earlier[:1]).all() else earlier
    if shared and len(rows) > 1 and (width > OWN_WIDTH or 8 * len(rows) * H.size > OWN_BYTES):
        return H
    keep = np.pad(~rows, ((0, 0), (0, width - earlier.shape[1])), constant_values=True)
    out = H * keep[:, :, None] * keep[:, None, :]
    index = np.arange(width)
    out[:, index, index] = np.diagonal(H, axis1=-2, axis2=-1)
    return np.asarray(out[0] if shared and len(out) == 1 else out)


def product(D: Array, H: Array) -> Array:
    """`D_r H`, or `D_r H_r` where every row has a matrix of its own: `[rows, n]`."""
    return np.asarray(D @ H if H.ndim == 2 else (D[:, None, :] @ H)[:, 0, :])


def absolute_damping(mean: float, damping: float) -> float:
    """`damping` times the mean of a diagonal, or `damping` itself where that mean is zero."""
    return damping * (mean if mean > 0 else 1.0)
