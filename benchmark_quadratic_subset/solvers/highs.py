"""HiGHS on the linearised selection."""

from benchmark_utils.solving import Once


class Solver(Once):
    """HiGHS on the linearised selection."""

    name = "highs"
