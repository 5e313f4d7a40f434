"""The best subset of every size, with a bound on all others of that size."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.budget import Budget
from solvers.curve import curve
from solvers.estimators.columns import always
from solvers.estimators.least_squares import LeastSquares
from solvers.hessian import Array
from solvers.problem import Mask
from solvers.solution import Status
from solvers.solve import solve
from solvers.summary import first, number, percent, summary

CRITERIA = ("aic", "bic")


@dataclass(frozen=True)
class BestSubsetPath:
    """A subset for every number of features.

    Attributes:
        n_features: `[K]` numbers of features, rising.
        objective: `[K]` of the subsets found, see `LeastSquares`.
        bound: `[K]` no subset of as many features has a smaller objective.
        support: `[K, p]` whether a feature is selected.
        coef: `[K, m, p]`; `[K, p]` of a single output.
        intercept: `[K, m]`; `[K]` of a single output.
        aic: `[K]` Akaike's criterion, `N m log(RSS / (N m)) + 2 (k m)`, with the sample weights' sum for N.
        bic: `[K]` Schwarz's, with `log N` for 2.
        gap: relative gap asked for, of what leaving features out adds to the objective.
        proven: `[K]` where that is proven.
        status: why the search stopped.
        seconds: wall time.
    """

    n_features: NDArray[np.int64]
    objective: Array
    bound: Array
    support: Mask
    coef: Array
    intercept: Array
    aic: Array
    bic: Array
    gap: float
    proven: Mask
    status: Status
    seconds: float

    def __repr__(self) -> str:
        lines = [
            f"{k:4d} features: objective {number(value)}, bound {number(low)}"
            for k, value, low in zip(self.n_features.tolist(), self.objective, self.bound, strict=True)
        ]
        return summary(
            f"BestSubsetPath: {int(self.proven.sum())} of {len(lines)} sizes proven to {percent(self.gap)}, "
            f"{self.seconds:.2f} s",
            *first(lines),
        )

    def best(self, criterion: str = "bic") -> int:
        """The index of least `bic` or `aic`.

        Raises:
            ValueError: for another criterion.
        """
        if criterion not in CRITERIA:
            raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
        return int(np.argmin(getattr(self, criterion)))


def best_subset_path(
    X: ArrayLike,
    y: ArrayLike,
    *,
    alpha: float | None = None,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    standardize: bool = True,
    always_keep: Any = None,
    gap: float = 1e-4,
    time_limit: float | None = None,
    random_state: int = 0,
) -> BestSubsetPath:
    """The best subset of every number of features, in one search, each with a proof.

    The sizes of a single output share their work (`solvers.curve`); of several, each is solved by itself.
    Of more than 160 features the subsets are greedy, and bounds those of relaxations.

    Args:
        X: `[N, p]`, or a data frame.
        y: `[N]`, or `[N, m]` outputs that select the same features.
        alpha: as in `LeastSquares`, and so are the next three.
        sample_weight: see there.
        fit_intercept: see there.
        standardize: see there.
        always_keep: features that every subset has: indices, names, or a mask.
        gap: relative, of what leaving features out adds to the objective.
        time_limit: seconds, or None.
        random_state: seed.

    Raises:
        ValueError: in one line, for data that is no regression.
    """
    from sklearn.utils import check_X_y

    start = time.perf_counter()
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    inputs, targets = check_X_y(X, y, multi_output=True, y_numeric=True, dtype=np.float64)
    squares = LeastSquares(
        inputs, targets, alpha=alpha, weight=sample_weight, intercept=fit_intercept, standardize=standardize
    )
    return path_of(
        squares,
        always(always_keep, squares.p, names),
        gap,
        time_limit,
        random_state,
        targets.ndim == 1,
        start,
    )


def path_of(
    squares: LeastSquares,
    kept: NDArray[np.int64],
    gap: float,
    time_limit: float | None,
    seed: int,
    alone: bool,
    start: float,
) -> BestSubsetPath:
    """The path of a least squares fit, whose columns `kept` are always selected."""
    p, m = squares.p, squares.Y.shape[1]
    free = p - len(kept)
    supports = np.ones((free + 1, p), dtype=bool)
    bound, proven = np.full(free + 1, -math.inf), np.zeros(free + 1, dtype=bool)
    status = Status.OPTIMAL
    counts = np.arange(free, -1, -1)  # pruned, from the fewest features to the most
    if free == 0:
        bound[0], proven[0] = squares.base, True
    elif m == 1:
        problem = squares.problem(Budget.per_row(0), kept)
        found = curve(problem, gap=gap, time_limit=time_limit, seed=seed)
        supports = ~np.stack([found.masks(k)[0] for k in counts.tolist()])
        bound, proven, status = squares.base + found.lower[0, counts], found.proven[0, counts], found.status
    else:
        for i, k in enumerate(counts.tolist()):
            left = None if time_limit is None else max(time_limit + start - time.perf_counter(), 1e-3)
            share = None if left is None else left / (len(counts) - i)
            problem = squares.problem(Budget.columns(k), kept)
            one = solve(problem, gap=gap, time_limit=share, seed=seed)
            supports[i], bound[i] = ~one.mask[0], squares.base + one.bound
            proven[i] = one.status is Status.OPTIMAL
            status = status if proven[i] else one.status
            if one.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
    fits = [squares.fit(support) for support in supports]
    objective = np.array([squares.objective(v) for v in fits])
    size = float(squares.columns.weight.sum()) * m
    rest = np.maximum(np.array([squares.residual(v) for v in fits]), np.finfo(float).tiny)
    fitted = supports.sum(axis=1) * m
    back = [squares.coefficients(v) for v in fits]
    coef, intercept = np.stack([w for w, _ in back]), np.stack([b for _, b in back])
    return BestSubsetPath(
        supports.sum(axis=1), objective, np.minimum(bound - squares.rounding, objective), supports,
        coef[:, 0] if alone else coef, intercept[:, 0] if alone else intercept,
        size * np.log(rest / size) + 2.0 * fitted, size * np.log(rest / size) + np.log(size / m) * fitted,
        gap, proven, status, time.perf_counter() - start,
    )  # fmt: skip
