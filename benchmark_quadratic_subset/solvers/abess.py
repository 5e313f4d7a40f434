"""Splicing, a heuristic (Zhu et al. 2020)."""

from benchmark_utils.solving import Once, needs

needs("abess")


class Solver(Once):
    """Splicing, a heuristic (Zhu et al. 2020).

    In an environment of its own, made by `cbs peers install abess`.
    """

    name = "abess"
