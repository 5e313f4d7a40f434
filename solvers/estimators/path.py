"""The best subset of every size, with a bound on all others of that size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
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
        gap: relative gap of the objective that was asked for.
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
    sizes: Iterable[int] | None = None,
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
        gap: relative, of the objective.
        time_limit: seconds, or None.
        random_state: seed.
        sizes: numbers of features wanted, always kept ones included; None for all.

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
    kept = always(always_keep, squares.p, names)
    wanted = list(range(len(kept), squares.p + 1)) if sizes is None else sorted({int(k) for k in sizes})
    if not wanted or not len(kept) <= wanted[0] <= wanted[-1] <= squares.p:
        raise ValueError(f"sizes must lie between {len(kept)} and {squares.p}, got {wanted}")
    return path_of(squares, kept, wanted, gap, time_limit, random_state, targets.ndim == 1, start)


def path_of(
    squares: LeastSquares,
    kept: NDArray[np.int64],
    sizes: list[int],
    gap: float,
    time_limit: float | None,
    seed: int,
    alone: bool,
    start: float,
) -> BestSubsetPath:
    """The path of a least squares fit at some sizes, whose columns `kept` are always selected."""
    p, m = squares.p, squares.Y.shape[1]
    supports, bound = np.ones((len(sizes), p), dtype=bool), np.full(len(sizes), -math.inf)
    status = Status.OPTIMAL
    counts = p - np.array(sizes)  # pruned
    if len(kept) == p:
        bound[0] = squares.base
    elif m == 1:
        problem = squares.problem(Budget.per_row(0), kept)
        found = curve(problem, gap=gap, time_limit=time_limit, seed=seed, counts=counts.tolist())
        supports = ~np.stack([found.masks(k)[0] for k in counts.tolist()])
        bound, status = squares.base + found.lower[0, counts], found.status
    else:
        for i, k in enumerate(counts.tolist()):
            left = None if time_limit is None else max(time_limit + start - time.perf_counter(), 1e-3)
            share = None if left is None else left / (len(counts) - i)
            problem = squares.problem(Budget.columns(k), kept)
            one = solve(problem, gap=gap, time_limit=share, seed=seed)
            supports[i], bound[i] = ~one.mask[0], squares.base + one.bound
            status = status if one.status is Status.OPTIMAL else one.status
            if one.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
    fits = [squares.fit(support) for support in supports]
    objective = np.array([squares.objective(v) for v in fits])
    size = float(squares.columns.weight.sum()) * m
    rest = np.maximum(np.array([squares.residual(v) for v in fits]), np.finfo(float).tiny)
    fitted = supports.sum(axis=1) * m
    back = [squares.coefficients(v) for v in fits]
    coef, intercept = np.stack([w for w, _ in back]), np.stack([b for _, b in back])
    low = np.minimum(np.maximum(bound - squares.rounding, 0.0), objective)
    proven = squares.gap(objective, low) <= gap
    if status is Status.FEASIBLE and proven.all():
        status = Status.OPTIMAL
    return BestSubsetPath(
        supports.sum(axis=1), objective, low, supports,
        coef[:, 0] if alone else coef, intercept[:, 0] if alone else intercept,
        size * np.log(rest / size) + 2.0 * fitted, size * np.log(rest / size) + np.log(size / m) * fitted,
        gap, proven, status, time.perf_counter() - start,
    )  # fmt: skip
