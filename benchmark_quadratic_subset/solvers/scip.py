"""SCIP on the split-strengthened model."""

from benchmark_utils.solving import Once


class Solver(Once):
    """SCIP on the split-strengthened model."""

    name = "scip"
