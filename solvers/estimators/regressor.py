"""`BestSubsetRegressor`: least squares on the best columns, which is proven or bounded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from solvers.estimators.columns import always, budget_of
from solvers.estimators.least_squares import LeastSquares
from solvers.estimators.path import CRITERIA, BestSubsetPath, path_of
from solvers.estimators.selector import Count, Labels, SubsetSelector, weights
from solvers.hessian import Array
from solvers.solution import Status
from solvers.solver import Solver


class BestSubsetRegressor(RegressorMixin, SubsetSelector):  # type: ignore[misc]
    """Linear regression on the subset of features whose sum of squares is least.

        minimise  sum_i s_i |y_i - b - w x_i|^2 + alpha sum_j (c_j |w_j|)^2   over  w with k features

    Solved as a quadratic subset problem (`LeastSquares`) by branch and bound with a proof up to 128 features,
    by strong search with a certified bound beyond. Also a selector: `transform` gives the selected columns.

    Args:
        n_features_to_select: a number of features; a share of them (a float); None for half; `"bic"` or
            `"aic"` for the size on the proven path at which the criterion is least; with `groups` a number
            for all groups, or a mapping from label to number. Features that are always kept count.
        alpha: ridge; None for 0 where columns are independent, else a small one (`alpha_` says which):
            dependent columns, or more columns than samples, have no best coefficients of their own.
        fit_intercept: whether to fit b, which is not penalized.
        standardize: whether the ridge is in units of the columns' standard deviations `c_j`; else `c_j = 1`.
        always_keep: features that are always selected: indices, names, or a mask.
        groups: `[n_features]` labels; each group selects its own number.
        solver: a name from `solvers.available()`, or a `Solver`.
        time_limit: seconds, or None.
        gap: relative gap of the objective to prove.
        random_state: seed of the solver; None for 0.

    Attributes:
        coef_: `[n_features]`; `[n_outputs, n_features]` of a y with columns, which select the same features.
        intercept_: number, or `[n_outputs]`.
        support_: `[n_features]` bool.
        n_features_to_select_: how many are selected.
        alpha_: the ridge used.
        objective_: recomputed from the data.
        bound_: no subset of the budget has a smaller objective.
        gap_: `(objective_ - bound_) / objective_`; 0 where they differ by rounding only.
        status_: why the search stopped: `"optimal"` where the gap is proven.
        path_: `BestSubsetPath` where a criterion chose the size.
    """

    def __init__(
        self,
        n_features_to_select: Count = None,
        *,
        alpha: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        always_keep: Sequence[Any] | None = None,
        groups: Labels = None,
        solver: str | Solver = "auto",
        time_limit: float | None = None,
        gap: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.always_keep = always_keep
        self.groups = groups
        self.solver = solver
        self.time_limit = time_limit
        self.gap = gap
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> BestSubsetRegressor:
        """Select features and fit their coefficients.

        Args:
            X: `[n_samples, n_features]`, dense.
            y: `[n_samples]` or `[n_samples, n_outputs]`.
            sample_weight: `[n_samples]`, not negative.

        Raises:
            ValueError: in one line, for parameters and data that do not fit each other.
        """
        inputs, targets = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        squares = LeastSquares(
            inputs, targets, alpha=self.alpha, weight=weights(sample_weight, inputs),
            intercept=self.fit_intercept, standardize=self.standardize,
        )  # fmt: skip
        p, m = squares.p, squares.Y.shape[1]
        kept = always(self.always_keep, p, getattr(self, "feature_names_in_", None))
        self.__dict__.pop("path_", None)
        if isinstance(self.n_features_to_select, str):
            self._choose(squares, kept)
        else:
            budget = budget_of(self.n_features_to_select, self.groups, kept, p, shared=m > 1)
            self.support_, self.status_ = np.ones(p, dtype=bool), Status.OPTIMAL.value
            if len(kept) == p:
                self._bound(squares, squares.base)
            else:
                found = self._solve(squares.problem(budget, kept), squares.base)
                self.support_ = ~found.mask[0]
                self._bound(squares, squares.base + found.bound)
                self.status_ = self._status(found)
        coef, intercept = squares.coefficients(squares.fit(self.support_))
        flat = targets.ndim == 1
        self.coef_ = coef[0] if flat else coef
        self.intercept_ = float(intercept[0]) if flat else intercept
        self.alpha_, self.n_features_to_select_ = squares.alpha, int(self.support_.sum())
        return self

    def _choose(self, squares: LeastSquares, kept: Any) -> None:
        criterion = str(self.n_features_to_select)
        if criterion not in CRITERIA:
            raise ValueError(
                f"n_features_to_select must be a number, a share, None, or one of {', '.join(CRITERIA)}, "
                f"got {criterion!r}"
            )
        if self.groups is not None:
            raise ValueError(f"n_features_to_select={criterion!r} does not go with groups; give numbers")
        path: BestSubsetPath = path_of(
            squares,
            kept,
            list(range(max(1, len(kept)), squares.p + 1)),
            self.gap,
            self.time_limit,
            0,
            squares.Y.shape[1] == 1,
            time.perf_counter(),
        )
        best = path.best(criterion)
        self.path_, self.support_ = path, path.support[best].copy()
        self.status_ = Status.OPTIMAL.value if path.proven[best] else path.status.value
        self._bound(squares, float(path.bound[best]))

    def _bound(self, squares: LeastSquares, bound: float) -> None:
        """The objective of the support, and what bounds it."""
        self.objective_ = squares.objective(squares.fit(self.support_))
        self.bound_ = min(max(bound - squares.rounding, 0.0), self.objective_)
        self.gap_ = float(squares.gap(self.objective_, self.bound_))

    def predict(self, X: ArrayLike) -> Array:
        """`[n_samples]`, or `[n_samples, n_outputs]`."""
        check_is_fitted(self)
        inputs = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(inputs @ self.coef_.T + self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
