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

from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Progress, Solution, Status
from solvers.solve import solve
from solvers.solver import Solver


class SubsetSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Parameters of a search, and a fitted `support_` that selects columns in a pipeline."""

    solver: str | Solver
    time_limit: float | None
    gap: float
    random_state: Any
    support_: Mask
    gap_: float

    def _solve(self, problem: SubsetProblem, base: float) -> Solution:
        """Solve a problem to a gap of the objective, which is `base` and the problem's value.

        Raises:
            KeyboardInterrupt: at Ctrl-C: whoever fits many models wants to end them all.
        """
        seed = self.random_state
        if seed is None or (isinstance(seed, int | np.integer) and not isinstance(seed, bool)):
            seed = int(seed or 0)
        else:
            seed = int(check_random_state(seed).randint(2**31 - 1))
        enough = [False]

        def proven(progress: Progress) -> bool:
            low, high = progress.bounds.lower, progress.bounds.upper
            enough[0] = high - low <= 0.9 * self.gap * abs(base + high)
            return enough[0]

        found = solve(
            problem, self.solver, time_limit=self.time_limit, gap=self.gap, seed=seed, callback=proven
        )
        if found.status is Status.INTERRUPTED and not enough[0]:
            raise KeyboardInterrupt
        return found

    def _status(self, found: Solution) -> str:
        """Why the search stopped: `optimal` exactly where `gap_` is at most the gap asked for."""
        if self.gap_ <= self.gap:
            return Status.OPTIMAL.value
        return str((Status.FEASIBLE if found.status is Status.OPTIMAL else found.status).value)

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
