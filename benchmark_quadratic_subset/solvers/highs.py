"""HiGHS on the linearised selection."""

from benchmark_utils.solving import Once, needs

needs("highs")


class Solver(Once):
    """HiGHS on the linearised selection."""

    name = "highs"
    test_config = {"dataset": {"variant": "selection"}}
