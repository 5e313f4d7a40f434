"""A bound by a split of the curvature, and the mask it rounds to."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """A bound by a split of the curvature, and the mask it rounds to."""

    name = "relaxation"
