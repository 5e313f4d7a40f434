"""Xpress on the split-strengthened model."""

from benchmark_utils.solving import Once, needs

needs("xpress")


class Solver(Once):
    """Xpress on the split-strengthened model."""

    name = "xpress"
