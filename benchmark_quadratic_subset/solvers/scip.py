"""SCIP on the split-strengthened model."""

from benchmark_utils.solving import Once, needs

needs("scip")


class Solver(Once):
    """SCIP on the split-strengthened model."""

    name = "scip"
