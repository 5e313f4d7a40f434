"""ADMM (Meng et al. 2024)."""

from benchmark_utils.solving import Once


class Solver(Once):
    """ADMM (Meng et al. 2024)."""

    name = "alps"
