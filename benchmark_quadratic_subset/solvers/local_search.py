"""Greedy, then best swaps."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """Greedy, then best swaps."""

    name = "local-search"
