"""Gurobi on the split-strengthened model."""

from benchmark_utils.solving import Once


class Solver(Once):
    """Gurobi on the split-strengthened model."""

    name = "gurobi"
