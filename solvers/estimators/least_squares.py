"""Least squares as a subset problem: `w = OLS`, `H = 2 X'X`, and a value is a rise of the sum of squares."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from solvers.budget import Budget
from solvers.estimators.columns import Columns, definite_solve
from solvers.hessian import Array
from solvers.hessian.base import condition
from solvers.problem import EPS, Mask, SubsetProblem

SINGULAR = 1e10
"""Condition of the Gram matrix at unit diagonal beyond which columns count as dependent."""
RIDGE = 1e-6
"""The ridge that dependent columns get where none was asked for, as a share of their sums of squares."""


class LeastSquares:
    """Coefficients w and intercept b of `Y [N, m]` on `X [N, p]`, of which some columns are selected.

        objective = sum_i s_i |y_i - b - w x_i|^2 + alpha sum_j (c_j |w_j|)^2

    with sample weights s, and `c_j` the (weighted) standard deviation of column j if `standardize`, else 1.
    On standardized columns Z the full fit is `v = (Z'SZ + alpha)^-1 Z'SY`, and with `H = 2 (Z'SZ + alpha)`
    the objective of a subset is that of the full fit and the joint value of `SubsetProblem(v, H)`.

    Args:
        X: `[N, p]`.
        Y: `[N, m]`, or `[N]`.
        alpha: ridge; None for 0 where columns are independent (condition up to 1e10), else 1e-6 of their
            sums of squares.
        weight: `[N]` sample weights, or None for ones.
        intercept: whether b is fitted; it is not penalized.
        standardize: see above.

    Attributes:
        alpha: the ridge used.
        columns: standardized.

    Raises:
        ValueError: in one line, for dependent columns and an `alpha` of 0.
    """

    def __init__(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        alpha: float | None = None,
        weight: ArrayLike | None = None,
        intercept: bool = True,
        standardize: bool = True,
    ) -> None:
        X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
        Y = Y[:, None] if Y.ndim == 1 else Y
        s = np.ones(len(X)) if weight is None else np.asarray(weight, dtype=np.float64)
        if s.shape != (len(X),) or not (np.isfinite(s) & (s >= 0.0)).all():
            raise ValueError(
                f"sample_weight must hold a number >= 0 for each of {len(X)} samples, got shape {s.shape}"
            )
        X, Y, s = X[s > 0.0], Y[s > 0.0], s[s > 0.0]
        if not len(X):
            raise ValueError("sample_weight is 0 for every sample; give some a positive weight")
        if alpha is not None and not 0.0 <= alpha < np.inf:
            raise ValueError(f"alpha must be a finite number >= 0, or None, got {alpha!r}")
        self.columns = Columns.of(X, s, intercept=intercept, standardize=standardize)
        self.mean: Array = s @ Y / s.sum() if intercept else np.zeros(Y.shape[1])
        self.Y: Array = Y - self.mean
        Z = self.columns.Z
        self._gram: Array = (Z.T * s) @ Z
        flat = np.diagonal(self._gram) == 0.0
        self._gram[flat, flat] = 1.0  # a constant column has the coefficient 0, whatever is selected
        if not alpha:
            dependent = condition(self._gram) > SINGULAR
            if dependent and alpha is not None:
                raise ValueError(
                    "alpha is 0, but the columns of X are dependent (or more than the samples); "
                    "give alpha > 0, or None for a small ridge"
                )
            alpha = RIDGE * float(s.sum()) if dependent else 0.0
            if dependent and not standardize:
                alpha /= float(self.columns.penalty.max())
        self.alpha = float(alpha)

    @property
    def p(self) -> int:
        """Columns."""
        return len(self._gram)

    @cached_property
    def _system(self) -> Array:
        return self._gram + np.diag(self.alpha * self.columns.penalty)

    @cached_property
    def _target(self) -> Array:
        """`[p, m]`, `Z'SY`."""
        return (self.columns.Z.T * self.columns.weight) @ self.Y

    @cached_property
    def full(self) -> Array:
        """`[m, p]` coefficients of Z with all columns."""
        return definite_solve(self._system, self._target).T

    def problem(self, budget: Budget, movable: NDArray[np.int64] | tuple[int, ...] = ()) -> SubsetProblem:
        """The subset problem of a budget, whose movable columns are always selected."""
        return SubsetProblem(self.full, 2.0 * self._system, budget, movable=movable)

    @cached_property
    def base(self) -> float:
        """The objective with all columns: what a problem's values and bounds are on top of."""
        return self.objective(self.full)

    @cached_property
    def rounding(self) -> float:
        """What rounding in the sums of squares may move an objective by."""
        total = float((self.columns.weight @ self.Y**2).sum())
        return 8.0 * (len(self.Y) + self.p) * EPS * total

    def gap(self, objective: Array | float, bound: Array | float) -> Array:
        """`(objective - bound) / objective`, 0 where they differ by rounding only."""
        value, low = np.asarray(objective), np.asarray(bound)
        apart = value - low > 2.0 * self.rounding
        return np.asarray(np.where(apart, (value - low) / np.where(apart, value, 1.0), 0.0))

    def objective(self, v: Array) -> float:
        """The objective of coefficients `[m, p]` of Z, from the data."""
        rest = self.Y - self.columns.Z @ v.T
        ridge = self.alpha * float((self.columns.penalty * v * v).sum())
        return float((self.columns.weight @ rest**2).sum()) + ridge

    def residual(self, v: Array) -> float:
        """The sum of squares alone."""
        return float((self.columns.weight @ (self.Y - self.columns.Z @ v.T) ** 2).sum())

    def fit(self, support: Mask) -> Array:
        """`[m, p]` the best coefficients of Z with the selected columns `[p]` alone, by QR on the data."""
        v = np.zeros((self.Y.shape[1], self.p))
        chosen = np.flatnonzero(support & self.columns.Z.any(axis=0))
        root = np.sqrt(self.columns.weight)[:, None]
        A, B = root * self.columns.Z[:, chosen], root * self.Y
        if self.alpha:
            A = np.concatenate([A, np.diag(np.sqrt(self.alpha * self.columns.penalty[chosen]))])
            B = np.concatenate([B, np.zeros((len(chosen), B.shape[1]))])
        if len(chosen):
            v[:, chosen] = scipy.linalg.lstsq(A, B, check_finite=False)[0].T
        return v

    def coefficients(self, v: Array) -> tuple[Array, Array]:
        """Coefficients `[m, p]` of X and intercepts `[m]` from coefficients of Z."""
        coef = self.columns.original(v)
        return coef, self.mean - coef @ self.columns.mean
