"""OR-Tools' CP-SAT on the linearised selection."""

from benchmark_utils.solving import Once


class Solver(Once):
    """OR-Tools' CP-SAT on the linearised selection."""

    name = "cp-sat"
    test_config = {"dataset": {"variant": "selection"}}
