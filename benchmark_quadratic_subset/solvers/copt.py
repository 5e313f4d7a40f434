"""COPT on the split-strengthened model."""

from benchmark_utils.solving import Once, needs

needs("copt")


class Solver(Once):
    """COPT on the split-strengthened model."""

    name = "copt"
