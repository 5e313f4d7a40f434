"""The cheapest weight first."""

from benchmark_utils.solving import Once


class Solver(Once):
    """The cheapest weight first."""

    name = "greedy"
