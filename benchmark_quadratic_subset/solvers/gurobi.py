"""Gurobi on the split-strengthened model."""

from benchmark_utils.solving import Once, needs

needs("gurobi")


class Solver(Once):
    """Gurobi on the split-strengthened model."""

    name = "gurobi"
