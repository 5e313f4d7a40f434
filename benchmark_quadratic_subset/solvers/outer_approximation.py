"""Cuts and OR-Tools' MIP."""

from benchmark_utils.solving import Once


class Solver(Once):
    """Cuts and OR-Tools' MIP."""

    name = "outer-approximation"
