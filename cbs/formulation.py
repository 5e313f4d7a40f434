"""From a layer and its curvature to the solvers' arrays, and from their solutions back to weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cbs.network.layers import Layer
from solvers import Budget, FactorHessian, SubsetProblem
from solvers.hessian import Array
from solvers.problem import Mask

OWN_WIDTH = 256
"""Inputs up to which rows whose earlier masks differ get curvatures of their own."""
OWN_BYTES = 1 << 29
"""What these may take in a layer."""


@dataclass(frozen=True)
class Weights:
    """A layer's parameters as solvers see them: `W [m, n]` and `bias [m]` or None, double precision."""

    W: Array
    bias: Array | None

    @property
    def augmented(self) -> Array:
        """`[m, n]`, or `[m, n + 1]` with the bias as the last column."""
        return self.W if self.bias is None else np.column_stack([self.W, self.bias])


@dataclass(frozen=True)
class Objective:
    """A layer's local model: `1/2 sum_r D_r H D_r'` for a move `D` of its weights and bias.

    Attributes:
        name: of the layer.
        dense: the trained parameters.
        H: damped Gram `[n, n]`, or `[n + 1, n + 1]` with a bias, whose diagonal entry is not damped.
        damping: what was added to the diagonal of the weights' part, absolute.
        earlier: `[m, n]`, True where pruned before: these weights stay zero; None if there are none.
    """

    name: str
    dense: Weights
    H: Array
    damping: float
    earlier: Mask | None = None

    def problem(self, budget: Budget, scales: Array | None = None) -> SubsetProblem:
        """The joint problem: survivors and the bias move, the bias is never pruned.

        Args:
            budget: of the layer.
            scales: `[m]` factor of every row's objective, not negative; None for ones. It is put into the
                weights, which are multiplied by its root.

        Raises:
            ValueError: if `H` is singular.
        """
        n = self.dense.W.shape[1]
        movable = () if self.dense.bias is None else (n,)
        W = self.dense.augmented
        if scales is not None:
            W = np.sqrt(scales)[:, None] * W
        try:
            H = self.H if self.earlier is None else decoupled(self.H, self.earlier)
            return SubsetProblem(W, H, budget, movable=movable)
        except ValueError as error:
            raise ValueError(f"layer {self.name!r}: {error}") from None

    def scale(self, moved: Weights) -> float:
        """What `row_values` would sum to without cancellation: `1/2 sum_r |D_r| |H| |D_r'|`."""
        D = np.abs(moved.augmented - self.dense.augmented)
        return float(0.5 * np.einsum("ri,ri->", D @ np.abs(self.H), D))

    def row_values(self, moved: Weights) -> Array:
        """`[m]` objective of every row when the dense weights become `moved`."""
        D = moved.augmented - self.dense.augmented
        return np.asarray(0.5 * np.einsum("ri,ri->r", D @ self.H, D))


@dataclass(frozen=True)
class Pruned:
    """A layer's answer: a mask `[m, n]`, True where pruned, and the parameters after pruning."""

    mask: Mask
    weights: Weights


def array(values: Tensor) -> Array:
    """A tensor as a double-precision array of its own."""
    return np.array(values.detach().cpu().double().numpy())


def layer_weights(layer: Layer) -> Weights:
    """A layer's present parameters; no bias where it stays as it is."""
    bias = layer.bias
    return Weights(array(layer.module.weight).reshape(layer.shape), None if bias is None else array(bias))


def decoupled(H: Array, earlier: Mask) -> Array:
    """A layer's curvature in which weights pruned before have no part: `[n, n]`, or `[m, n, n]` one a row.

    Their rows and columns are zero but for the diagonal: such a weight, which is zero, never moves, and it
    costs nothing to prune it. Where the rows differ and their matrices would be too wide or large, it is `H`
    itself: a mask that prunes what was pruned before costs the same under both, and any other no more.

    Args:
        H: `[n, n]`, with further columns perhaps for what is never pruned.
        earlier: `[m, n]`, True where pruned before.
    """
    rows = earlier[:1] if (earlier == earlier[:1]).all() else earlier
    if len(rows) > 1 and (len(H) > OWN_WIDTH or 8 * len(rows) * H.size > OWN_BYTES):
        return H
    keep = np.pad(~rows, ((0, 0), (0, len(H) - earlier.shape[1])), constant_values=True)
    out = H * keep[:, :, None] * keep[:, None, :]
    index = np.arange(len(H))
    out[:, index, index] = np.diagonal(H)
    return np.asarray(out[0] if len(out) == 1 else out)


def layer_objective(layer: Layer, gram: Tensor, damping: float, earlier: Mask | None = None) -> Objective:
    """A layer's objective from its Gram.

    Args:
        layer: the layer.
        gram: `[n, n]` or, with a bias, `[n + 1, n + 1]`.
        damping: added to the diagonal of the weights' part, relative to its mean; absolute where
            that mean is zero (a layer whose inputs are all zero).
        earlier: `[m, n]`, True where pruned before.
    """
    H = array(gram)
    n = layer.shape[1]
    added = absolute_damping(float(np.diagonal(H)[:n].mean()), damping)
    H[np.arange(n), np.arange(n)] += added
    known = None if earlier is None or not earlier.any() else earlier
    return Objective(layer.name, layer_weights(layer), H, added, known)


def absolute_damping(mean: float, damping: float) -> float:
    """`damping` times the mean of a diagonal, or `damping` itself where that mean is zero."""
    return damping * (mean if mean > 0 else 1.0)


def factor(X: Tensor, damping: float) -> FactorHessian:
    """The Hessian `X'X / N + c I` of a factor `[N, p]`, which must not be written to afterwards.

    `c` is `damping` times its mean diagonal.
    """
    return _damped(X.detach().cpu().double().numpy(), damping)


def damped_block(hessian: FactorHessian, columns: NDArray[np.int64], damping: float) -> FactorHessian:
    """Some columns of a factor, damped by `damping` times their own mean diagonal."""
    return _damped(hessian.X[:, columns], damping)


def _damped(X: Array, damping: float) -> FactorHessian:
    return FactorHessian(X, absolute_damping(float(np.einsum("si,si->", X, X)) / X.size, damping))


def flat_budget(budget: Budget, m: int, n: int) -> Budget:
    """A layer's budget on its weights laid out as one row of `m * n`, row after row.

    Raises:
        ValueError: for column budgets, which have no such form.
    """
    if budget.kind == "per_row":
        assert isinstance(budget.prune, int)
        return Budget.n_of_m(n - budget.prune, n)
    if budget.kind == "columns":
        raise ValueError("budget 'columns' couples the rows and can't be laid out in one")
    return budget


def pruned(problem: SubsetProblem, mask: Mask, moved: Array) -> Pruned:
    """The layer's answer from a mask of its problem and the weights `moved` that go with it."""
    p = problem.prunable
    bias = moved[:, -1].copy() if len(problem.movable) else None
    return Pruned(mask[:, p].copy(), Weights(moved[:, p].copy(), bias))


def refitted(layer: Layer, K: Tensor, C: Tensor, damping: float, mask: Mask) -> Pruned:
    """The layer's answer for a mask whose survivors and bias minimise `E|V z - W x|^2 + c |V - W|^2`.

    For a move `D` of the weights that is the joint model with `H = K + c I` and the gradient
    `G = W (K - C)`.

    Args:
        layer: the dense layer.
        K: `E[z z']`, z the layer's input in the pruned network.
        C: `E[x z']`, x its input in the dense network.
        damping: `c`, relative to the mean diagonal of the weights' part of K.
        mask: `[m, n]`, True where pruned.
    """
    objective = layer_objective(layer, K, damping)
    W = objective.dense.augmented
    movable = () if objective.dense.bias is None else (W.shape[1] - 1,)
    budget = Budget.per_row(mask.sum(axis=1).tolist())
    gradient = W @ array(K - C)
    problem = SubsetProblem(W, objective.H, budget, gradient=gradient, movable=movable)
    wide = np.pad(mask, ((0, 0), (0, len(movable))))
    return pruned(problem, wide, problem.weights(wide))


def masked(dense: Weights, mask: Mask) -> Pruned:
    """The layer's answer without compensation: pruned weights become zero, the rest stays."""
    return Pruned(mask, Weights(np.where(mask, 0.0, dense.W), dense.bias))


def smallest(scores: Sequence[Array], budgets: Sequence[Budget] | int) -> list[Mask]:
    """Masks that prune the entries of smallest score.

    Args:
        scores: `[m, n]` of every layer. For column budgets a column's score is the sum of its entries.
        budgets: a budget for every layer, or the number of entries that all layers prune together.
    """
    if isinstance(budgets, int):
        joined = np.concatenate([s.ravel() for s in scores])[None, :]
        chosen = Budget.per_layer(budgets).pools(1, joined.size).smallest(joined)[0]
        parts = np.split(chosen, np.cumsum([s.size for s in scores])[:-1])
        return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]
    masks = []
    for s, budget in zip(scores, budgets, strict=True):
        pools = budget.pools(*s.shape)
        ranked = s.sum(axis=0, keepdims=True) if pools.coupled else s
        masks.append(pools.expand(pools.smallest(ranked), len(s)))
    return masks
