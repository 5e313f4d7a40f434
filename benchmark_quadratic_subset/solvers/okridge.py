"""Branch and bound for k-sparse ridge regression (Liu et al. 2023)."""

from benchmark_utils.solving import Once, needs

from solvers.peers.known import OKRidge

needs("okridge")


class Solver(Once):
    """Branch and bound for k-sparse ridge regression (Liu et al. 2023).

    In an environment of its own, made by `cbs peers install okridge`. With `trust` its claim is shown as
    its bound.
    """

    name = "okridge"
    parameters = {"trust": [True]}

    def chosen(self):
        """The peer, taken at its word or not."""
        return OKRidge(trust=self.trust)
