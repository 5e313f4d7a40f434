"""Tabu search."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """Tabu search."""

    name = "tabu"
