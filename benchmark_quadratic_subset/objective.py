"""Quadratic subset selection: the smallest loss increase of a mask that meets its budget."""

import math

import numpy as np
from benchopt import BaseObjective


class Objective(BaseObjective):
    """Prune a layer of weights W with curvature H: minimise `sum_r 1/2 d_r' H_r d_r` over masks of a budget.

    In the joint variant the survivors move to the least cost, in the selection variant they stay. A solver
    gives a mask, True where pruned, and the lower bound that it has proven, if any. Nothing it says of the
    value is believed: the value is computed here.
    """

    name = "Quadratic subset selection"
    min_benchopt_version = "1.9"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {"gap": [1e-4], "time_limit": [30.0]}
    test_dataset_name = "random"
    test_config = {"time_limit": 5.0, "dataset": {"rows": 1, "inputs": 12}}

    def skip(self, problem, optimum=None, reason=None):
        """Data that is not there is left out, with the reason."""
        return problem is None, reason

    def set_data(self, problem, optimum=None, reason=None):
        """The problem, and its optimal value where that is known."""
        self.problem, self.optimum = problem, optimum

    def get_objective(self):
        """What a solver is asked."""
        return {"problem": self.problem, "gap": self.gap, "time_limit": self.time_limit}

    def evaluate_result(self, mask, bound=-math.inf):
        """Value, bound, gap, and whether the mask meets the budget; NaN for what is not known."""
        try:
            value = self.problem.value(mask)
        except ValueError:
            return {
                "value": math.inf, "bound": math.nan, "gap": math.nan, "feasible": 0.0, "excess": math.nan,
                "contradiction": 0.0,
            }  # fmt: skip
        known = math.isfinite(bound)
        rounding = 1e-9 * max(abs(value), self.problem.scale)
        reference = math.nan if self.optimum is None else self.optimum
        wrong = known and (bound > value + rounding or bound > reference + rounding)
        return {
            "value": value,
            "bound": bound if known else math.nan,
            "gap": (value - bound) / max(abs(value), np.finfo(float).tiny) if known else math.nan,
            "feasible": 1.0,
            "excess": value / reference - 1.0 if reference else math.nan,
            "contradiction": float(wrong),
        }

    def get_one_result(self):
        """The mask of the smallest weights."""
        pools = self.problem.pools
        return {"mask": pools.expand(pools.smallest(abs(self.problem.W)), self.problem.m), "bound": 0.0}
