"""One pass with error feedback (Frantar and Alistarh 2023)."""

from benchmark_utils.solving import Once


class Solver(Once):
    """One pass with error feedback (Frantar and Alistarh 2023)."""

    name = "sparsegpt"
