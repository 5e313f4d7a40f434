"""Several searches of wide layers."""

from benchmark_utils.solving import ByCallback


class Solver(ByCallback):
    """Several searches of wide layers."""

    name = "portfolio"
