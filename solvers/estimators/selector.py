"""What the estimators share: their parameters, the search for a subset, and the selector's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from solvers.control import Callback
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Solution
from solvers.solve import solve
from solvers.solver import Solver


class SubsetSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Parameters of a search, and a fitted `support_` that selects columns in a pipeline."""

    solver: str | Solver
    time_limit: float | None
    gap: float
    random_state: Any
    support_: Mask

    def _solve(self, problem: SubsetProblem, callback: Callback | None = None) -> Solution:
        seed = self.random_state
        if seed is None or (isinstance(seed, int | np.integer) and not isinstance(seed, bool)):
            seed = int(seed or 0)
        else:
            seed = int(check_random_state(seed).randint(2**31 - 1))
        return solve(
            problem, self.solver, time_limit=self.time_limit, gap=self.gap, seed=seed, callback=callback
        )

    def _get_support_mask(self) -> Mask:
        check_is_fitted(self, "support_")
        return self.support_


def weights(sample_weight: ArrayLike | None, X: Array) -> Array:
    """`[N]` sample weights.

    Raises:
        ValueError: in one line, for negative ones, or none that is positive.
    """
    found: Array = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not found.any():
        raise ValueError("sample_weight is 0 for every sample; give some a positive weight")
    return found


Count = int | float | str | Mapping[Any, int] | None
"""How many features to select."""
Labels = Sequence[Any] | None
"""A group for every feature, or none."""
