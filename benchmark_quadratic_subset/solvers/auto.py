"""The default: exact where that can be done, else a search with a bound."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """The default: exact where that can be done, else a search with a bound."""

    name = "auto"
