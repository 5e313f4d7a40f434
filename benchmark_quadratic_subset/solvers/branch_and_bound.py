"""Exact, with a proof."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """Exact, with a proof."""

    name = "branch-and-bound"
