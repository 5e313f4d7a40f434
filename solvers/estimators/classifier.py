"""`BestSubsetClassifier`: logistic regression on columns that are best by a quadratic model of its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from solvers.budget import Budget
from solvers.estimators.columns import Columns, always, budget_of
from solvers.estimators.logistic import Logistic
from solvers.estimators.selector import Count, Labels, SubsetSelector, weights
from solvers.hessian import Array
from solvers.problem import SubsetProblem
from solvers.solution import Bounds, Solution, Status
from solvers.solver import Solver

FALL = 1e-9
"""Relative fall of the loss below which it is taken for rounding."""
NEAR = 8
"""Features that may go, and that may come, of which exchanges are ranked."""
TRIED = 16
"""Exchanges that are tried."""


class BestSubsetClassifier(ClassifierMixin, SubsetSelector):  # type: ignore[misc]
    """Logistic regression with a ridge, on a subset of the features.

        minimise  sum_i s_i log(1 + exp(-t_i (w x_i + b))) + alpha/2 sum_j (c_j w_j)^2  over  w of k features

    The loss is not quadratic, so subsets come from its *second-order model* (iteratively reweighted least
    squares), a subset problem that is solved with a proof: first that at the fit with all features, then
    that at the logistic fit on the subset found, and so on. Where a model has nothing better, exchanges of
    one feature that it ranks best are tried on the loss itself. What counts is the loss; the search ends when
    neither lowers it.

    `bound_` and `gap_` are about the model at the coefficients that are returned, where model and loss agree:
    they say that it proposes no better subset. `loss_bound_` is below the loss of every subset
    (`Logistic.bound`), often far.

    Of more than two classes each has coefficients of its own against the rest, and all select the same
    features.

    Args:
        n_features_to_select: as in `BestSubsetRegressor`, but no criterion; None for half, and no fewer than
            the classes less one, which are the directions that it takes to tell them apart.
        alpha: ridge, positive; 1.0 is what `C=1` is in `LogisticRegression`.
        fit_intercept: whether to fit b, which is not penalized.
        standardize: whether the ridge is in units of the columns' standard deviations `c_j`; else `c_j = 1`.
        always_keep: features that are always selected: indices, names, or a mask.
        groups: `[n_features]` labels; each group selects its own number.
        solver: a name from `solvers.available()`, or a `Solver`.
        time_limit: seconds for each model, or None.
        gap: relative gap of `bound_` to prove.
        max_iter: times that a model's subset, or exchange, is taken at most.
        random_state: seed of the solver; None for 0.

    Attributes:
        classes_: `[n_classes]`.
        coef_: `[1, n_features]`, or `[n_classes, n_features]` of more than two classes.
        intercept_: `[1]` or `[n_classes]`.
        support_: `[n_features]` bool.
        n_features_to_select_: how many are selected.
        objective_: the loss above at `coef_`, summed over the rows of coefficients.
        bound_: no subset has a smaller value of the loss's second-order model at `coef_`.
        gap_: `(objective_ - bound_) / objective_`.
        loss_bound_: no subset has a smaller objective.
        log_loss_: the mean loss of a sample, without the ridge.
        status_: `"optimal"` where `gap_` is at most the gap asked for; `"feasible"` where the model prefers
            another subset, whose loss is larger; else why the model's search stopped.
        n_iter_: models solved.
    """

    def __init__(
        self,
        n_features_to_select: Count = None,
        *,
        alpha: float = 1.0,
        fit_intercept: bool = True,
        standardize: bool = True,
        always_keep: Sequence[Any] | None = None,
        groups: Labels = None,
        solver: str | Solver = "auto",
        time_limit: float | None = None,
        gap: float = 1e-4,
        max_iter: int = 10,
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
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> BestSubsetClassifier:
        """Select features and fit the logistic regression on them.

        Args:
            X: `[n_samples, n_features]`, dense.
            y: `[n_samples]` classes.
            sample_weight: `[n_samples]`, not negative.

        Raises:
            ValueError: in one line, for parameters and data that do not fit each other.
        """
        if not self.alpha > 0.0 or not np.isfinite(self.alpha):
            raise ValueError(f"alpha must be a finite number > 0, got {self.alpha!r}")
        if isinstance(self.max_iter, bool) or not isinstance(self.max_iter, int) or self.max_iter < 1:
            raise ValueError(f"max_iter must be a whole number >= 1, got {self.max_iter!r}")
        inputs, targets = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(targets)
        s = weights(sample_weight, inputs)
        inputs, targets, s = inputs[s > 0.0], targets[s > 0.0], s[s > 0.0]
        self.classes_, at = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only, {self.classes_.tolist()[0]!r}; need at least two classes"
            )
        own = [1] if len(self.classes_) == 2 else range(len(self.classes_))
        signs = np.stack([np.where(at == c, 1.0, -1.0) for c in own])
        columns = Columns.of(inputs, s, intercept=self.fit_intercept, standardize=self.standardize)
        loss = Logistic(columns, signs, self.alpha * columns.penalty, self.fit_intercept)
        p = inputs.shape[1]
        kept = always(self.always_keep, p, getattr(self, "feature_names_in_", None))
        if isinstance(self.n_features_to_select, str):
            raise ValueError(
                "n_features_to_select must be a number, a share or None, got "
                f"{self.n_features_to_select!r}: criteria are for BestSubsetRegressor"
            )
        count = self.n_features_to_select
        if count is None and self.groups is None:
            count = min(p, max(p // 2, len(self.classes_) - 1, len(kept)))
        budget = budget_of(count, self.groups, kept, p, shared=len(signs) > 1)
        theta, bound, found = self._search(loss, budget, kept)
        self.objective_ = float(loss.losses(theta).sum())
        self.bound_ = min(bound, self.objective_)
        self.gap_ = Bounds(self.bound_, self.objective_).gap
        self.status_ = Status.OPTIMAL.value if found is None else self._status(found)
        ridge = 0.5 * float((theta[:, :p] ** 2 @ loss.ridge).sum())
        self.log_loss_ = (self.objective_ - ridge) / float(s.sum())
        self.loss_bound_ = min(self._loss_bound(loss, budget, kept), self.objective_)
        self.coef_ = columns.original(theta[:, :p])
        ends = theta[:, p] if self.fit_intercept else np.zeros(len(theta))
        self.intercept_ = ends - self.coef_ @ columns.mean
        self.n_features_to_select_ = int(self.support_.sum())
        return self

    def _search(
        self, loss: Logistic, budget: Budget, kept: NDArray[np.int64]
    ) -> tuple[Array, float, Solution | None]:
        """Coefficients on the best support found, a bound on the model there, and the model's solution."""
        p = len(loss.ridge)
        self.support_, self.n_iter_ = np.ones(p, dtype=bool), 1
        theta = loss.fit(self.support_)
        if len(kept) == p:
            return theta, float(loss.losses(theta).sum()), None
        value = np.inf
        for turn in range(1, self.max_iter + 2):
            base, problem = float(loss.losses(theta).sum()), loss.problem(theta, budget, kept)
            self.n_iter_ = turn
            found = self._solve(problem, base)
            support = ~found.mask[0, :p]
            if turn == self.max_iter + 1:
                break
            trial = loss.fit(support, theta)
            then = float(loss.losses(trial).sum())
            if then >= value * (1.0 - FALL) and turn > 1:
                support, trial, then = self._exchange(loss, problem, theta, value)
            if then >= value * (1.0 - FALL):
                break
            self.support_, theta, value = support, trial, then
        return theta, base + found.bound, found

    def _exchange(
        self, loss: Logistic, problem: SubsetProblem, theta: Array, value: float
    ) -> tuple[Any, Array, float]:
        """The first exchange of two features that lowers the loss, of those that the model ranks best."""
        p = len(loss.ridge)
        mask = np.zeros(problem.W.shape, dtype=bool)
        mask[:, :p] = ~self.support_
        pools = np.full(problem.n, -1)
        pools[problem.prunable] = problem.pools.labels[0]
        root = [loss.derivatives(row, each) for row, each in enumerate(theta)]
        stiff = np.stack([np.diagonal(H) for _, H in root])
        gain = (np.stack([g for g, _ in root]) ** 2 / stiff).sum(axis=0)
        loss_of = (theta**2 * stiff).sum(axis=0)
        free = np.flatnonzero((pools >= 0) & ~mask[0])
        come = np.flatnonzero(mask[0])
        ranked = []
        for go in free[np.argsort(loss_of[free], kind="stable")][:NEAR].tolist():
            near = come[pools[come] == pools[go]]
            for back in near[np.argsort(-gain[near], kind="stable")][:NEAR].tolist():
                other = mask.copy()
                other[:, go], other[:, back] = True, False
                ranked.append((problem.value(other), go, back))
        for _, go, back in sorted(ranked)[:TRIED]:
            support = self.support_.copy()
            support[go], support[back] = False, True
            trial = loss.fit(support, theta)
            then = float(loss.losses(trial).sum())
            if then < value * (1.0 - FALL):
                return support, trial, then
        return self.support_, theta, value

    def _loss_bound(self, loss: Logistic, budget: Budget, kept: NDArray[np.int64]) -> float:
        free = np.setdiff1d(np.arange(len(loss.ridge)), kept)
        if not len(free):
            return float(loss.losses(loss.fit(np.ones(len(loss.ridge), dtype=bool))).sum()) * (1.0 - 1e-12)
        pools = budget.laid_over(1, len(free))
        return loss.bound(free, pools.labels[0], pools.keep)

    def decision_function(self, X: ArrayLike) -> Array:
        """`[n_samples]` of two classes, positive for the second; else `[n_samples, n_classes]`."""
        check_is_fitted(self)
        found = validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_.T + self.intercept_
        return np.asarray(found[:, 0] if len(self.classes_) == 2 else found)

    def predict_proba(self, X: ArrayLike) -> Array:
        """`[n_samples, n_classes]`; of more than two, each class against the rest, made to add up to 1."""
        found = 0.5 * (1.0 + np.tanh(0.5 * self.decision_function(X)))
        if found.ndim == 1:
            return np.stack([1.0 - found, found], axis=1)
        total = found.sum(axis=1, keepdims=True)
        return np.asarray(
            np.where(total > 0.0, found / np.where(total > 0.0, total, 1.0), 1.0 / found.shape[1])
        )

    def predict(self, X: ArrayLike) -> Any:
        """`[n_samples]` classes."""
        found = self.decision_function(X)
        return self.classes_[(found > 0.0).astype(int) if found.ndim == 1 else found.argmax(axis=1)]
