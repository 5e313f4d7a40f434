"""Gurobi on the big-M model."""

from benchmark_utils.solving import Once, needs

needs("gurobi-plain")


class Solver(Once):
    """Gurobi on the big-M model."""

    name = "gurobi-plain"
