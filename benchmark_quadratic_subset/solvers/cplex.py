"""CPLEX on the split-strengthened model."""

from benchmark_utils.solving import Once, needs

needs("cplex")


class Solver(Once):
    """CPLEX on the split-strengthened model."""

    name = "cplex"
