"""Iterative hard thresholding (Benbaki et al. 2023)."""

from benchmark_utils.solving import Once


class Solver(Once):
    """Iterative hard thresholding (Benbaki et al. 2023)."""

    name = "chita"
